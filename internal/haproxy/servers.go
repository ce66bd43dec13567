package haproxy

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Bits of ServerState.Admin that commands set; HAProxy has more bits for states that it detects itself.
const (
	AdminMaint = 0x01 // maintenance, forced by a command or by "disabled"
	AdminDrain = 0x08 // draining, forced by a command
)

// adminOut are all bits of ServerState.Admin that keep a server out of traffic whatever its health is: maintenance that
// was forced, inherited from a tracked server, or caused by a name that cannot be resolved.
const adminOut = 0x01 | 0x02 | 0x20 | 0x40

// Values of ServerState.Op and CheckResult.
const (
	opStopped   = 0
	opRunning   = 2
	checkFailed = 2
)

// CheckEnabled is the bit of ServerState.Check and Agent that is set while checks run.
const CheckEnabled = 0x04

// ServerState is a line of "show servers state".
type ServerState struct {
	Backend, Name string
	ID            int
	Addr          string // as HAProxy prints it; "-" while a name is not resolved
	Port          int
	Weight        int // as set, before a slow start and the like
	Admin         int
	Check, Agent  int
	Op            int    // 0 while checks have found it dead
	CheckResult   int    // of the last health check
	FQDN          string // "-" where the address is no name
}

// Out reports whether the server gets no traffic whatever its health is, so that nothing is known about that.
func (s ServerState) Out() bool { return s.Admin&adminOut != 0 }

// Dead reports whether health checks have found the server dead.
func (s ServerState) Dead() bool { return s.Op == opStopped && s.Check&CheckEnabled != 0 && !s.Out() }

// Well reports whether the server is up and its last health check has not failed.
func (s ServerState) Well() bool { return s.Op == opRunning && s.CheckResult != checkFailed }

// The columns of "show servers state" that are read.
var serverColumns = [...]string{
	"be_name", "srv_name", "srv_id", "srv_addr", "srv_port", "srv_uweight", "srv_admin_state", "srv_check_state", "srv_agent_state",
	"srv_op_state", "srv_check_result", "srv_fqdn",
}

// ParseServers parses the reply to "show servers state", for one backend or for all.
func ParseServers(text string) ([]ServerState, error) {
	var (
		servers []ServerState
		columns map[int]int // position in a line to index in serverColumns
	)
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if header, ok := strings.CutPrefix(line, "# "); ok {
			columns = serverHeader(header)
			if len(columns) != len(serverColumns) {
				return nil, fmt.Errorf("answer to show servers state: header %.200q lacks a column", header)
			}
			continue
		}
		if line == "" || columns == nil { // the first line is the format's version
			continue
		}
		s, err := parseServer(line, columns)
		if err != nil {
			return nil, err
		}
		servers = append(servers, s)
	}
	if columns == nil {
		return nil, fmt.Errorf("answer to show servers state: no header in it: %.80q", text)
	}
	return servers, nil
}

func serverHeader(header string) map[int]int {
	columns := map[int]int{}
	for i, name := range strings.Fields(header) {
		for j, want := range serverColumns {
			if name == want {
				columns[i] = j
			}
		}
	}
	return columns
}

func parseServer(line string, columns map[int]int) (ServerState, error) {
	var field [len(serverColumns)]string
	i := 0
	for f := range strings.SplitSeq(line, " ") {
		if j, ok := columns[i]; ok {
			field[j] = f
		}
		i++
	}
	s := ServerState{Backend: field[0], Name: field[1], Addr: field[3], FQDN: field[11]}
	var errs [8]error
	for j, number := range []*int{&s.ID, &s.Port, &s.Weight, &s.Admin, &s.Check, &s.Agent, &s.Op, &s.CheckResult} {
		*number, errs[j] = strconv.Atoi(field[[...]int{2, 4, 5, 6, 7, 8, 9, 10}[j]])
	}
	if s.Name == "" || errors.Join(errs[:]...) != nil {
		return ServerState{}, fmt.Errorf("answer to show servers state: line %.200q", line)
	}
	return s, nil
}
