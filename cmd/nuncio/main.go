// Command nuncio keeps an HAProxy in step with the services registered in etcd. "nuncio run" is made to be the
// entrypoint of the HAProxy container; the other commands help to write templates and to see what etcd holds.
//
// It promises one documented exit code per kind of failure (see exit.go), that every flag may be given as an
// environment variable NUNCIO_<FLAG>, and that a misspelt one of those is an error. It refuses to decide: it
// reads flags, connects the rooms, and passes signals on.
//
//	nuncio run --etcd-endpoints=http://192.0.2.1:2379 --templates=/etc/nuncio/templates
package main

import "os"

// version is set by the linker ("make build").
var version = "unknown"

func main() {
	os.Exit(Main(os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}
