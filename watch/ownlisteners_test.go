package watch_test

import (
	"testing"

	"nuncio/internal/catalog"
	"nuncio/watch"
)

func TestRecordsOfOwnListenersAreRefused(t *testing.T) {
	for _, c := range []struct {
		name, listener, host string
		port                 int
		tcpPort              string
		refused              bool
	}{
		{"the listener itself", "127.0.0.1:8404", "127.0.0.1", 8404, "", true},
		{"as an IPv4-mapped address", "127.0.0.1:8404", "::ffff:127.0.0.1", 8404, "", true},
		{"by name", "127.0.0.1:8404", "localhost", 8404, "", true},
		{"by a name below localhost", "127.0.0.1:8404", "x.localhost", 8404, "", true},
		{"by the unspecified address", "127.0.0.1:8404", "0.0.0.0", 8404, "", true},
		{"a different loopback address", "127.0.0.1:8404", "127.0.0.2", 8404, "", false},
		{"a different port", "127.0.0.1:8404", "127.0.0.1", 8405, "", false},
		{"a listener on every address, by loopback", ":8404", "127.0.0.2", 8404, "", true},
		{"a listener on every address, from a different machine", "0.0.0.0:8404", "192.0.2.7", 8404, "", false},
		{"a name that HAProxy resolves", ":8404", "web.example.com", 8404, "", false},
		{"the port of the listener for a TCP service", "127.0.0.1:8404", "192.0.2.7", 80, "8404", true},
		{"no listener", "", "127.0.0.1", 8404, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := &catalog.Instance{Host: c.host, Port: c.port, Meta: map[string]string{}}
			if c.tcpPort != "" {
				i.Meta["tcp.port"] = c.tcpPort
			}
			if reason := watch.RefuseOwnListeners(c.listener)(i); (reason != "") != c.refused {
				t.Errorf("%s:%d with tcp.port %q behind %q: got reason %q, want refused %v", c.host, c.port, c.tcpPort, c.listener, reason, c.refused)
			}
		})
	}
}
