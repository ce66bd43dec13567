// Package deploy holds what an operator starts: container images, fleet and systemd units, a Compose file, and the set-up
// of etcd's access control. There is no Go code but tests.
//
// It promises that every file here is exercised: units are linted and verified, images are built and run hardened, and
// the walk-through's failovers happen on a real Docker engine. It refuses tests that need anything but this
// machine: networks and containers are the test's own and go with it.
//
//	NUNCIO_TEST_STRICT=1 go test ./deploy
package deploy
