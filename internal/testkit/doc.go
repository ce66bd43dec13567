// Package testkit gives tests real parts: an etcd server process that can be stopped, killed, paused and wiped,
// the HAProxy binaries of every supported version, web servers, free addresses, and waiting with a deadline.
//
// It promises that everything it starts ends with the test, that addresses never collide between test
// processes, and that a missing tool skips a test on a laptop but fails it where NUNCIO_TEST_STRICT=1 is
// set, as "make test" does. Only _test.go files import it.
package testkit
