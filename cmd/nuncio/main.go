// Command nuncio updates HAProxy from the services registered in etcd. "nuncio run" is the entrypoint of the HAProxy
// container; the other commands help to write templates, show the state and take an operator's commands.
//
// It promises one documented exit code per kind of failure (see exit.go). Every flag can be given as an environment
// variable NUNCIO_<FLAG>, and a misspelt one is an error. It decides nothing: it reads flags, connects the packages,
// and passes signals on.
//
//	nuncio run --etcd-endpoints=http://192.0.2.1:2379 --templates=/etc/nuncio/templates
package main

import (
	"os"
	"runtime"
)

// version is set by the linker ("make build").
var version = "unknown"

func main() {
	// The signal that a process gets when its parent dies (PR_SET_PDEATHSIG, which unshare --kill-child uses) belongs to its
	// first thread, and outlives an exec in place only if that thread calls it. Go begins main there.
	runtime.LockOSThread()
	os.Exit(Main(os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}
