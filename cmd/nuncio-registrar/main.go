// Command nuncio-registrar registers this host's Docker containers, or anything else, as service records in
// etcd. "nuncio-registrar run" is the daemon; "nuncio-registrar CONTAINER PORT SERVICE" serves one container;
// "register" serves an endpoint that is not a container; "drain" and "list" are for scripts and operators.
//
// It promises one documented exit code per kind of failure (see exit.go), that every flag may be given as an
// environment variable NUNCIO_REGISTRAR_<FLAG>, and that a misspelt one of those is an error. It decides
// nothing: it reads flags, connects the packages, and passes signals on.
//
//	nuncio-registrar run --node=core-1 --etcd-endpoints=http://192.0.2.1:2379
package main

import "os"

// version is set by the linker ("make build").
var version = "unknown"

func main() {
	os.Exit(Main(os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}
