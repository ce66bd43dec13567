// Package embedded runs an etcd server of one member inside the process, for machines that have no cluster.
//
// It promises that a start ends either with a server that answers or with an error that names the cause (the address is
// in use, the directory cannot be written, another etcd uses it), that Wait returns why a server ended by itself, that
// the data directory is private to its owner, that old revisions are compacted, and that the peer port listens on
// loopback only. It refuses to join or form a cluster.
//
//	server, err := embedded.Start(ctx, embedded.Options{Dir: "/var/lib/nuncio/etcd"})
//	if err != nil {
//		return err
//	}
//	defer server.Close()
//	group.Go(func() error { return server.Wait(ctx) })
//	client, err := etcd.Dial(etcd.Config{Endpoints: []string{server.Endpoint()}}, logger)
package embedded
