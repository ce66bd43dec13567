// Package register turns Docker containers into service records in etcd, and takes the records away again
// when the containers go.
//
// It promises that events are hints only: the truth is a set of wanted records, computed from facts by a pure
// function (Rules.Decide), compared with what etcd holds, and written in transactions. One lease carries all
// records of one registrar; it is kept alive without writing, taken over by the next process of the same
// node, and granted again with everything put again when it was lost. A record that nobody changed is never
// written twice. A container that got its stop signal is drained before it dies.
//
// It refuses to touch a key that another registrar or a person wrote, to run beside a second registrar of the
// same node, to guess a loopback or bridge address, and to send anything but GET requests to Docker.
//
//	reg, err := register.New(register.Options{
//		Client: client, Prefix: "/services/", Node: "core-1", TTL: 15 * time.Second,
//		Source: register.NewDocker(register.DockerOptions{API: api, Rules: register.Rules{Node: "core-1"}}),
//	})
//	err = reg.Run(ctx)
package register
