// Package deploy contains the files that an operator starts: container images, fleet and systemd units, a Compose file, and
// the set-up of etcd's access control. Its only Go code is tests.
//
// It promises that a test exercises every file: units are linted and verified, images are built and run hardened, and the
// walk-through's failovers happen on a real Docker engine. Tests need only this machine; each creates its own networks
// and containers and removes them.
//
//	NUNCIO_TEST_STRICT=1 go test ./deploy
package deploy
