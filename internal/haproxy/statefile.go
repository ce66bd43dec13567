package haproxy

import (
	"fmt"
	"strconv"
	"strings"
)

// EmptyStateFile is a server-state-file that says nothing. HAProxy warns of one that is missing or empty.
const EmptyStateFile = "1\n"

// The columns of a line of "show servers state" that StateFile changes.
const (
	adminColumn  = "srv_admin_state"
	weightColumn = "srv_uweight"
	initColumn   = "srv_iweight"
)

// StateFile makes the reply to "show servers state" a server-state-file of the servers that keep chooses. HAProxy takes
// more than health from such a file: its port replaces the configured one (2.6 to 3.4), so keep must be false for a server
// whose address differs. Administrative states and weights are left out: the configuration decides those.
func StateFile(reply string, keep func(ServerState) bool) (string, error) {
	servers, err := ParseServers(reply)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	var at map[string]int
	for line := range strings.Lines(reply) {
		line = strings.TrimSuffix(line, "\n")
		if header, ok := strings.CutPrefix(line, "# "); ok {
			at = map[string]int{}
			for i, name := range strings.Fields(header) {
				at[name] = i
			}
			b.WriteString(line + "\n")
			continue
		}
		if line == "" || at == nil {
			if at == nil {
				b.WriteString(line + "\n") // the version of the format
			}
			continue
		}
		s := servers[0]
		servers = servers[1:]
		if !keep(s) {
			continue
		}
		fields := strings.Split(line, " ")
		if at[initColumn] == 0 || at[initColumn] >= len(fields) {
			return "", fmt.Errorf("answer to show servers state: line %.200q", line)
		}
		fields[at[adminColumn]] = "0"
		fields[at[weightColumn]] = fields[at[initColumn]]
		b.WriteString(strings.Join(fields, " ") + "\n")
	}
	return b.String(), nil
}

// HealthDown returns the command that makes a server start from "down", until its checks find it healthy.
func HealthDown(backend, server string) Command {
	return Command{Line: "set server " + backend + "/" + server + " health down"}
}

// Address returns the address of the server as its line in a configuration has it: of a name, not what it was resolved to.
func (s ServerState) Address() string {
	host := s.Addr
	switch {
	case s.FQDN != "-" && s.FQDN != "":
		host = s.FQDN
	case strings.Contains(host, ":"):
		host = "[" + host + "]"
	}
	return host + ":" + strconv.Itoa(s.Port)
}
