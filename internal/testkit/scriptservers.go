package testkit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// checkServer compares one server: "server BACKEND/NAME ADDR WEIGHT STATE". STATE is ready, maint, or left, for a server
// that is deleted or waits in maintenance for that; its address and weight do not matter then.
func checkServer(ts *testscript.TestScript, _ *scriptEnv, args []string) error {
	backend, name, _ := strings.Cut(args[1], "/")
	servers, err := shownServers(ts, backend)
	if err != nil {
		return err
	}
	want, got := strings.Join(args[2:], " "), servers[name]
	if args[4] == "left" && (got == "" || strings.HasSuffix(got, " maint")) {
		return nil
	}
	if got != want {
		return fmt.Errorf("haproxy has server %s as %q, want %q", args[1], got, want)
	}
	return nil
}

// checkServers compares all servers of a backend: "servers BACKEND N ADDR" means exactly N, all ready at one address.
func checkServers(ts *testscript.TestScript, _ *scriptEnv, args []string) error {
	servers, err := shownServers(ts, args[1])
	if err != nil {
		return err
	}
	for name, got := range servers {
		if addr, state, _ := strings.Cut(got, " "); addr != args[3] || !strings.HasSuffix(state, " ready") {
			return fmt.Errorf("haproxy has server %s/%s as %q, want it ready at %s", args[1], name, got, args[3])
		}
	}
	if strconv.Itoa(len(servers)) != args[2] {
		return fmt.Errorf("haproxy has %d servers in %s, want %s", len(servers), args[1], args[2])
	}
	return nil
}

// shownServers asks the worker for the servers of a backend, each as "ADDR WEIGHT STATE".
func shownServers(ts *testscript.TestScript, backend string) (map[string]string, error) {
	conn, err := net.Dial("unix", filepath.Join(ts.Getenv("STATE"), "run", "runtime.sock"))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return nil, err
	}
	if _, err := io.WriteString(conn, "show servers state "+backend+"\n"); err != nil {
		return nil, err
	}
	servers := map[string]string{}
	var column map[string]int
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		words := strings.Fields(lines.Text())
		switch {
		case len(words) > 1 && words[0] == "#":
			column = map[string]int{}
			for i, word := range words[1:] {
				column[word] = i
			}
		case column != nil && len(words) == len(column):
			admin, err := strconv.Atoi(words[column["srv_admin_state"]])
			if err != nil {
				return nil, err
			}
			state := "ready"
			if admin&0x01 != 0 { // the bits that a command or "disabled" sets, not those of health checks
				state = "maint"
			} else if admin&0x08 != 0 {
				state = "drain"
			}
			addr := net.JoinHostPort(words[column["srv_addr"]], words[column["srv_port"]])
			servers[words[column["srv_name"]]] = addr + " " + words[column["srv_uweight"]] + " " + state
		}
	}
	if column == nil {
		return nil, errors.New("haproxy shows no servers of " + backend)
	}
	return servers, nil
}
