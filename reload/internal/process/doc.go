// Package process runs one haproxy: it starts the master, makes it reload, proves which worker serves, and drains it.
//
// It promises that Reload returns nil only when a worker with the new files serves, on every version: 2.6 says nothing about the
// outcome, and later ones can be asked before the new worker is ready. It finds out beforehand what would cost requests: a
// file that HAProxy rejects (Checker), one that makes it crash (Vet), an address in use (Probe).
//
//	p, err := process.Launch(process.Options{Program: "haproxy", Configs: []string{"haproxy.cfg"}, ...})
//	err = p.Confirm(ctx)
//	err = p.Reload(ctx)
package process
