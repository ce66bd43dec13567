package testkit_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"nuncio/internal/testkit"
)

// TestPortsOfTwoProcessesDiffer runs this test binary several times at once, as two packages or two clones under test do,
// and compares the ports. They must differ whatever the host: HAProxy binds "*:port" for services with tcp.port.
func TestPortsOfTwoProcessesDiffer(t *testing.T) {
	const role = "NUNCIO_TEST_PRINT_PORTS"
	if os.Getenv(role) != "" {
		for range 20 {
			fmt.Println("addr", testkit.FreeAddr(t))
		}
		fmt.Println("end")
		_, _ = os.Stdin.Read(make([]byte, 1)) // keeps the ports until the parent closes the pipe
		return
	}
	owner := map[string]int{}
	for child := range 4 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestPortsOfTwoProcessesDiffer$")
		cmd.Env = append(os.Environ(), role+"=1")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			in.Close()
			if err := cmd.Wait(); err != nil {
				t.Errorf("child: %v", err)
			}
		})
		lines := bufio.NewScanner(out)
		for lines.Scan() && lines.Text() != "end" {
			addr, ok := strings.CutPrefix(lines.Text(), "addr ")
			if !ok {
				t.Fatalf("child %d: %s", child, lines.Text())
			}
			_, port, err := net.SplitHostPort(addr)
			if err != nil {
				t.Fatal(err)
			}
			if other, taken := owner[port]; taken {
				t.Errorf("processes %d and %d both got port %s", other, child, port)
			}
			owner[port] = child
		}
	}
	if len(owner) != 80 {
		t.Errorf("%d ports of 4 processes, want 80", len(owner))
	}
}

func TestFreeAddrAvoidsPortsInUse(t *testing.T) {
	for range 100 {
		_, port, err := net.SplitHostPort(testkit.FreeAddr(t))
		if err != nil {
			t.Fatal(err)
		}
		// On all addresses: one in use by anybody else would be an error.
		l, err := net.Listen("tcp", ":"+port)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
	}
}
