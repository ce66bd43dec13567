package process_test

import (
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"nuncio/internal/testkit"
	"nuncio/reload/internal/process"
)

func TestProbeFindsAddressesInUseOnly(t *testing.T) {
	l, err := net.Listen("tcp", testkit.FreeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	used, free := l.Addr().String(), testkit.FreeAddr(t)
	_, port, _ := net.SplitHostPort(used)
	local, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	address, name := local.Addr().String(), strings.Replace(local.Addr().String(), "127.0.0.1", "ipv4@localhost", 1)
	cfg := func(bind string) string { return "frontend f\n bind " + bind + "\n" }
	for _, c := range []struct {
		name, running, next string
		ok                  bool
	}{
		{"free", "", cfg(free), true},
		{"in use", "", cfg(used), false},
		{"in use by the running configuration", cfg(used), cfg(used), true},
		{"one of two is in use", "", cfg(free + "," + used), false},
		{"the wildcard overlaps with what a different process has", "", cfg(":" + port), false},
		{"not an address of this host", "", cfg("192.0.2.1:80"), false},
		{"a name whose address is in use: the reload finds out", "", cfg(name), true},
		{"a name that the running configuration has", cfg(name), cfg(name), true},
		{"a name that the running configuration has as an address", cfg(address), cfg(name), true},
		{"not an address of this host, but transparent", "", cfg("192.0.2.1:80 transparent"), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := process.Probe([]byte(c.running), []byte(c.next), nil)
			if (err == nil) != c.ok {
				t.Errorf("got %v", err)
			}
		})
	}
	// It must not keep anything itself.
	l2, err := net.Listen("tcp", free)
	if err != nil {
		t.Errorf("the probe holds the address: %v", err)
	} else {
		l2.Close()
	}
}

// A reload hands HAProxy's own listener over, so its address must not be reported as in use when a host name is replaced by
// its address. HAProxy's listeners share their port; a foreign one that does not is found all the same.
func TestProbeKnowsAPortThatHAProxyHasByName(t *testing.T) {
	own := sharedListener(t)
	_, port, _ := net.SplitHostPort(own.Addr().String())
	running, next := []byte("frontend f\n bind localhost:"+port+"\n"), []byte("frontend f\n bind 127.0.0.1:"+port+"\n")
	if err := process.Probe(running, next, nil); err != nil {
		t.Errorf("got %v", err)
	}
	if err := process.Probe(nil, next, nil); err == nil {
		t.Error("a foreign listener that shares its port is not found")
	}
}

// sharedListener listens as HAProxy does, with SO_REUSEPORT.
func sharedListener(t *testing.T) net.Listener {
	t.Helper()
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		controlErr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		return errors.Join(err, controlErr)
	}}
	l, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestTheEnvironmentOfHAProxyHasNoSecretOfNuncio(t *testing.T) {
	got := process.Environment([]string{"PATH=/bin", "NUNCIO_ETCD_PASSWORD=x", "HAPROXY_MWORKER_REEXEC=1", "HAPROXY_PROCESSES=x", "MY_HAPROXY=y"})
	if diff := cmp.Diff([]string{"RES_OPTIONS=timeout:1", "PATH=/bin", "MY_HAPROXY=y"}, got); diff != "" {
		t.Error(diff)
	}
	own := []string{"RES_OPTIONS=ndots:2"}
	if diff := cmp.Diff(own, process.Environment(own)); diff != "" {
		t.Errorf("what the operator has set: %s", diff)
	}
}
