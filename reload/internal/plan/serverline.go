package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"nuncio/internal/haproxy"
)

// server is one server line of a proxy, with the default-server words in force at that line put in front of its own.
type server struct {
	name     string
	address  string
	addr     netip.AddrPort
	isIPPort bool // the address is an IP and a port
	id       int  // 0: HAProxy chooses one

	weight   int
	maxconn  string
	disabled bool
	backup   bool
	cookie   string

	words    [][]string // what "add server" is given behind the address: everything but id, weight, maxconn and disabled
	identity string     // what no command can change on a living server: words as one text, with the id
	// immutableReason says why nuncio does not touch this server at run time; empty if it may.
	immutableReason string
	// notDynamicReason says why the line cannot become a dynamic server; empty if it can.
	notDynamicReason string
}

// servers reads the server lines of a section of m.
func (m *Model) servers(i int, keywords haproxy.ServerKeywords) ([]*server, error) {
	s := m.sections[i]
	inherited := m.inherited(i)
	var found []*server
	own, n := s.defaults, -1
	for line := range strings.Lines(s.text) {
		n++
		for len(own) > 0 && own[0].line < n {
			inherited, own = append(inherited, own[0].words...), own[1:]
		}
		if !isPlainServer(line) && !strings.ContainsAny(line, "\\\"'") {
			continue
		}
		v, err := readLine(line, inherited, keywords)
		if err != nil {
			return nil, err
		}
		if v != nil {
			found = append(found, v)
		}
	}
	return found, nil
}

// inherited returns the default-server words that section i has from others.
func (m *Model) inherited(i int) (words []haproxy.Word) {
	for _, d := range slices.Backward(m.defaultsChain(i)) {
		for _, l := range d.defaults {
			words = append(words, l.words...)
		}
	}
	return words
}

// readLine returns nil for a line that is not a server's.
func readLine(line string, inherited []haproxy.Word, keywords haproxy.ServerKeywords) (*server, error) {
	words, err := haproxy.AppendWords(nil, strings.TrimSuffix(line, "\n"), nil)
	if err != nil || len(words) == 0 || words[0].Text != "server" {
		return nil, err
	}
	v := readServer(words[1:], inherited, keywords)
	if slices.ContainsFunc(words, func(w haproxy.Word) bool { return w.Expanded }) {
		v.address, v.isIPPort = line, false // its words have been read without the environment
	}
	return v, nil
}

func readServer(own, inherited []haproxy.Word, keywords haproxy.ServerKeywords) *server {
	v := &server{weight: 1}
	if len(own) < 2 {
		v.immutableReason = "a server line lacks its address"
		return v
	}
	v.name, v.address = own[0].Text, own[1].Text
	var err error
	if v.addr, err = netip.ParseAddrPort(v.address); err == nil {
		v.isIPPort = haproxy.CheckAddress(v.address) == nil
	}
	if haproxy.CheckName(v.name) != nil {
		v.immutableReason = "its name is not one"
	}
	options := append(slices.Clip(inherited), own[2:]...)
	for _, w := range append(slices.Clip(options), own[:2]...) {
		if w.Expanded {
			v.immutableReason = "its line has an environment variable"
		}
	}
	v.options(options, keywords)
	if v.immutableReason != "" || !v.isIPPort {
		v.freezeAll(options)
		return v
	}
	v.identity = strings.Join(append(v.flat(), strconv.Itoa(v.id)), "\x00")
	return v
}

// freezeAll is for a line that no command is sent for. Any of its words may mean anything, those behind an unknown one even
// arguments of it, so all of them count, in their order: a difference mistaken for equality would never reach HAProxy.
func (v *server) freezeAll(options []haproxy.Word) {
	var texts []string
	for i, w := range options {
		texts = append(texts, w.Text)
		switch {
		case w.Text == "backup":
			v.backup = true
		case w.Text == "cookie" && i+1 < len(options):
			v.cookie = options[i+1].Text
		}
	}
	v.identity = strings.Join(append(texts, "all"), "\x00")
}

// options reads the words behind the address.
func (v *server) options(words []haproxy.Word, keywords haproxy.ServerKeywords) {
	for i := 0; i < len(words); {
		key := words[i].Text
		known, ok := keywords[key]
		if !ok || i+known.Args >= len(words) {
			v.immutableReason = fmt.Sprintf("nuncio does not know the word %q of its line", key)
			return
		}
		group := words[i : i+1+known.Args]
		i += len(group)
		argument := ""
		if known.Args > 0 {
			argument = group[1].Text
		}
		switch key {
		case "source":
			// Two more words may follow, as often as they like.
			for i+1 < len(words) && (words[i].Text == "usesrc" || words[i].Text == "interface") {
				group = words[i-len(group) : i+2]
				i += 2
			}
		case "id":
			v.number(key, argument, 1, 1<<31-1, &v.id)
			continue
		case "weight":
			v.number(key, argument, 0, 256, &v.weight)
			continue
		case "maxconn":
			v.maxconn = argument
			continue
		case "disabled", "enabled":
			v.disabled = key == "disabled"
			continue
		case "no-check":
			v.words = slices.DeleteFunc(v.words, func(group []string) bool { return group[0] == "check" })
			continue
		case "init-addr":
			continue // of no meaning for an IP address; with any other one, every word is kept
		case "cookie":
			v.cookie = argument
		case "backup":
			v.backup = true
		case "resolvers", "track":
			v.immutableReason = fmt.Sprintf("its line has %q", key)
		}
		if !known.Dynamic {
			v.notDynamicReason = fmt.Sprintf("this HAProxy does not take %q for a server that is added at run time", key)
		}
		texts := make([]string, len(group))
		for j, w := range group {
			texts[j] = w.Text
		}
		v.words = append(v.words, texts)
	}
}

func (v *server) flat() []string { return slices.Concat(v.words...) }

func (v *server) has(key string) bool {
	return slices.ContainsFunc(v.words, func(group []string) bool { return group[0] == key })
}

// killsSessionsOnDown reports whether connections to the server are cut when it goes down.
func (v *server) killsSessionsOnDown() bool { return v.has("on-marked-down") }

func (v *server) number(key, text string, low, high int, into *int) {
	n, err := strconv.Atoi(text)
	if err != nil || n < low || n > high || strconv.Itoa(n) != text {
		v.immutableReason = fmt.Sprintf("its %s is %q", key, text)
		return
	}
	*into = n
}

// addCommands returns the commands that make the server exist as it would after a start with its line.
func (v *server) addCommands(target string, version haproxy.Version) ([]haproxy.Command, error) {
	words := []string{"add", "server", target, v.addr.String()}
	if v.id != 0 {
		words = append(words, "id", strconv.Itoa(v.id))
	}
	words = append(words, "weight", strconv.Itoa(v.weight))
	if v.maxconn != "" {
		words = append(words, "maxconn", v.maxconn)
	}
	words = append(words, v.flat()...)
	if !version.AtLeast(3, 0) {
		// 2.6 opens a connection for every request to a dynamic server unless both are given.
		if !v.has("pool-max-conn") {
			words = append(words, "pool-max-conn", "-1")
		}
		if !v.has("pool-purge-delay") {
			words = append(words, "pool-purge-delay", "5s")
		}
	}
	if len(words) > haproxy.MaxWords-2 {
		return nil, fmt.Errorf("its line has too many words for a command") // 2.6 and 3.0 cut the rest off in silence
	}
	for i, w := range words {
		var err error
		if words[i], err = haproxy.EscapeArgument(w); err != nil {
			return nil, err
		}
	}
	commands := []haproxy.Command{{Line: strings.Join(words, " "), Answers: true}}
	// A dynamic server begins in maintenance, without checks even if it has "check".
	if v.has("check") {
		commands = append(commands, haproxy.Command{Line: "enable health " + target})
	}
	if v.has("agent-check") {
		commands = append(commands, haproxy.Command{Line: "enable agent " + target})
	}
	if !v.disabled {
		commands = append(commands, haproxy.Command{Line: "enable server " + target})
	}
	return commands, nil
}

// moveCommands returns the commands that give the server a new address. What HAProxy knows about the health of the old place
// says nothing about the new one, so the server counts as up, as after a start: one that was down would otherwise serve only
// after "rise" successful checks. The price is that requests to a new place that is down fail until "fall" checks have.
func (v *server) moveCommands(target string) []haproxy.Command {
	commands := []haproxy.Command{{Line: fmt.Sprintf("set server %s addr %s port %d", target, v.addr.Addr(), v.addr.Port()), Answers: true}}
	if v.immutableReason != "" || v.disabled || v.has("init-state") { // a server that leaves maintenance counts as up by itself
		return commands
	}
	if v.has("check") && !v.has("addr") { // with "addr" the check asks a different place, which has not moved
		commands = append(commands, haproxy.Command{Line: "set server " + target + " health up"})
	}
	if v.has("agent-check") && !v.has("agent-addr") {
		commands = append(commands, haproxy.Command{Line: "set server " + target + " agent up"})
	}
	return commands
}
