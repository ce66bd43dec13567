package haproxy

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// ShowStat is the Runtime API command whose reply ParseStat parses: the statistics of all servers and nothing else.
const ShowStat = "show stat -1 4 -1"

// ServerStat is what a worker reports about one server line.
type ServerStat struct {
	Backend, Name string
	Addr          string // empty if the socket's level hides it
	Status        string // "UP", "DOWN", "no check", "MAINT", "DRAIN", "UP 1/3", …
	Weight        int
	Sessions      int    // now
	Total         int64  // since the worker was started
	Changed       int64  // seconds since Status changed
	Check         string // the last check's result, such as "L4CON"
	CheckInfo     string // details of that check, in HAProxy's words; a description of Check while Checking
	Checking      bool   // the next check is in progress; its start cleared the details of the last one
}

// ParseStat parses the reply to ShowStat. It finds columns by name, because every version adds some.
func ParseStat(text string) ([]ServerStat, error) {
	r := csv.NewReader(strings.NewReader(strings.TrimPrefix(text, "# ")))
	r.FieldsPerRecord, r.ReuseRecord, r.LazyQuotes = -1, true, true
	head, err := r.Read()
	if err != nil {
		return nil, fmt.Errorf("answer to show stat: %w", err)
	}
	column := make(map[string]int, len(head))
	for i, name := range head {
		column[name] = i
	}
	for _, name := range []string{"pxname", "svname", "status"} {
		if _, there := column[name]; !there {
			return nil, fmt.Errorf("answer to show stat: no column %s in it: %.80q", name, text)
		}
	}
	var servers []ServerStat
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			return servers, nil
		}
		if err != nil {
			return nil, fmt.Errorf("answer to show stat: %w", err)
		}
		field := func(name string) string {
			if i, there := column[name]; there && i < len(row) {
				return row[i]
			}
			return ""
		}
		number := func(name string) int64 {
			n, _ := strconv.ParseInt(field(name), 10, 64) // empty if it has no meaning
			return n
		}
		info := field("last_chk")
		if info == "" {
			info = field("check_desc")
		}
		check, checking := strings.CutPrefix(field("check_status"), "* ")
		servers = append(servers, ServerStat{
			Backend: field("pxname"), Name: field("svname"), Addr: field("addr"), Status: field("status"),
			Weight: int(number("weight")), Sessions: int(number("scur")), Total: number("stot"), Changed: number("lastchg"),
			Check: check, CheckInfo: info, Checking: checking,
		})
	}
}

// Backend is what a worker says about a backend.
type Backend struct {
	Published bool // false too if there is no such backend
	Mode      string
}

// ShowBackend is the command whose reply ParseBackend parses: 2 stands for backends.
func ShowBackend(name string) Command { return Command{Line: "show stat " + name + " 2 -1"} }

// ParseBackend parses the reply to ShowBackend. HAProxy 3.4 and later say so where a backend is not published.
func ParseBackend(text, name string) (Backend, error) {
	r := csv.NewReader(strings.NewReader(strings.TrimPrefix(text, "# ")))
	r.FieldsPerRecord, r.LazyQuotes = -1, true
	rows, err := r.ReadAll()
	if err == nil && len(rows) == 0 || err == nil && rows[0][0] != "pxname" {
		if strings.HasPrefix(text, "No such proxy") {
			return Backend{}, nil
		}
		err = fmt.Errorf("%.80q", text)
	}
	if err != nil {
		return Backend{}, fmt.Errorf("answer to show stat: %w", err)
	}
	for _, row := range rows[1:] {
		var b Backend
		var found, backend bool
		for i, column := range rows[0][:min(len(rows[0]), len(row))] {
			switch column {
			case "pxname":
				found = row[i] == name
			case "svname":
				backend = row[i] == "BACKEND"
			case "status":
				b.Published = !strings.Contains(row[i], "UNPUB")
			case "mode":
				b.Mode = row[i]
			}
		}
		if found && backend {
			return b, nil
		}
	}
	return Backend{}, nil
}
