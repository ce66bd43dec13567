// Package register writes service records for Docker containers to etcd, and removes the records when the containers
// end.
//
// It promises that events are hints only: the desired set of records is computed from facts by a pure function
// (Rules.Decide), compared with what etcd has, and written in transactions. All records of one registrar are attached to
// one lease, which is kept alive without writing, taken over by the next process of the same node, and replaced, with
// all records written again, when it was lost. An unchanged record is never written twice, and etcd is not read while
// nothing changes. A container that was sent its stop signal is drained before it ends. No loop runs faster than its
// pauses allow while Docker or etcd is away.
//
// It refuses to touch a key that it did not write, to run beside a second registrar of the same node, to guess a
// loopback or bridge address, and to send anything but GET requests to Docker.
//
//	reg, err := register.New(register.Options{
//		Client: client, Prefix: "/services/", Node: "core-1", TTL: 15 * time.Second,
//		Source: register.NewDocker(register.DockerOptions{API: api, Rules: register.Rules{Node: "core-1"}}),
//	})
//	err = reg.Run(ctx)
package register
