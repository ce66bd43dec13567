package haproxy_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
)

// session starts a haproxy with a backend be, a map x.map and an ACL y.acl, and opens a session.
func session(t *testing.T, h testkit.HAProxy, lines ...string) *haproxy.Session {
	t.Helper()
	dir, addr := shortDir(t), testkit.FreeAddr(t)
	for _, name := range []string{"x.map", "y.acl"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("first x\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(t, dir, "global\n stats socket "+dir+"/r level admin\n"+header(addr)+
		" acl y path -f y.acl\n http-request deny if y\n use_backend %[path,map(x.map,be)]\nbackend be\n"+strings.Join(append(lines, ""), "\n"))
	h.Start(t, dir, addr)
	var s *haproxy.Session
	testkit.Eventually(t, 20*time.Second, func() (err error) { // a unix socket gets its name a moment after the others listen
		s, _, err = haproxy.RuntimeSocket(dir+"/r", 20*time.Second).Begin(t.Context(), nil)
		return err
	})
	t.Cleanup(s.Close)
	return s
}

func do(t *testing.T, s *haproxy.Session, commands ...haproxy.Command) []haproxy.Reply {
	t.Helper()
	replies, err := s.Do(t.Context(), commands)
	if err != nil {
		t.Fatal(err)
	}
	if len(replies) != len(commands) {
		t.Fatalf("%d replies to %d commands", len(replies), len(commands))
	}
	return replies
}

func TestSessionGetsOneReplyForEachCommand(t *testing.T) {
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		s := session(t, h, " server a 127.0.0.1:1 id 7", " server b [::1]:2 id 8 weight 0 check disabled")
		if info, err := haproxy.ParseInfo(do(t, s, haproxy.Command{Line: "show info"})[0].Text); err != nil {
			t.Fatalf("%+v, %v", info, err)
		}
		var commands []haproxy.Command
		for range 2000 {
			for _, line := range []string{
				"set server be/a weight 5", "set server be/none weight 5", "add server be/c 127.0.0.1:3 id 9 check", "enable server be/c",
				"set server be/a addr 127.0.0.2 port 4", "set server be/a addr nonsense", "frobnicate", "disable server be/c", "del server be/c",
			} {
				commands = append(commands, haproxy.Command{Line: line})
			}
		}
		for i, r := range do(t, s, commands...) {
			if want := slices.Contains([]int{1, 5, 6}, i%9); r.Refused() != want {
				t.Fatalf("%q: %+v, want refused %v", commands[i].Line, r, want)
			}
		}
		got, err := haproxy.ParseServers(do(t, s, haproxy.Command{Line: "show servers state be"})[0].Text)
		if err != nil || len(got) != 2 {
			t.Fatalf("%+v, %v", got, err)
		}
		if a, want := got[0], (haproxy.ServerState{Backend: "be", Name: "a", ID: 7, Addr: "127.0.0.2", Port: 4, Weight: 5, Op: 2, FQDN: "-"}); a != want {
			t.Errorf("got %+v, want %+v", a, want)
		}
		if b := got[1]; b.Addr != "::1" || b.ID != 8 || b.Weight != 0 || b.Admin&haproxy.AdminMaint == 0 || b.Check&haproxy.CheckEnabled == 0 {
			t.Errorf("got %+v", b)
		}
	})
}

func TestSessionSwapsAMapInChunks(t *testing.T) {
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		s := session(t, h)
		version, err := haproxy.ParseVersionReply(do(t, s, haproxy.Command{Line: "prepare map x.map"})[0].Text)
		if err != nil {
			t.Fatal(err)
		}
		var commands []haproxy.Command
		var want, chunk []string
		for i := range 5000 {
			entry := fmt.Sprintf("/path/%d/%s value %d", i, `\;"'`, i)
			want, chunk = append(want, entry), append(chunk, entry)
			if len(chunk) == 300 || i == 4999 {
				commands = append(commands, haproxy.Command{Line: fmt.Sprintf("add map @%d x.map <<", version), Payload: chunk})
				chunk = nil
			}
		}
		for i, r := range do(t, s, append(commands, haproxy.Command{Line: fmt.Sprintf("commit map @%d x.map", version)})...) {
			if r.Text != "" {
				t.Errorf("reply %d: %+v", i, r)
			}
		}
		got, err := haproxy.ParsePatterns(do(t, s, haproxy.Command{Line: "show map x.map"})[0].Text)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%d entries, %v; want %d", len(got), err, len(want))
		}
	})
}

func TestEscapedArgumentsAreReadBackExactly(t *testing.T) {
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		s := session(t, h)
		var want []string
		commands := []haproxy.Command{{Line: "clear acl y.acl"}}
		for c := 1; c < 256; c++ {
			for _, value := range []string{string([]byte{byte(c)}), string([]byte{'a', byte(c), byte(c), 'b'}), string([]byte{'<', byte(c), '\\'})} {
				arg, err := haproxy.EscapeArgument(value)
				if (err != nil) != (c < ' ' || c == 0x7f || strings.HasPrefix(value, "<<")) {
					t.Errorf("%q: %v", value, err)
				}
				if err == nil {
					want, commands = append(want, value), append(commands, haproxy.Command{Line: "add acl y.acl " + arg})
				}
			}
		}
		do(t, s, commands...)
		got, err := haproxy.ParsePatterns(do(t, s, haproxy.Command{Line: "show acl y.acl"})[0].Text)
		if err != nil || len(got) != len(want) {
			t.Fatalf("%d entries, %v; want %d", len(got), err, len(want))
		}
		for i := range got {
			if got[i] != want[i] {
				t.Errorf("got %q, want %q", got[i], want[i])
			}
		}
	})
}

func TestSessionRefusesWhatIsNotOneCommand(t *testing.T) {
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		s := session(t, h)
		for _, bad := range []haproxy.Command{
			{Line: ""},
			{Line: "show info;show info"},
			{Line: "show info\nshow info"},
			{Line: strings.Repeat("x", haproxy.MaxCommand+1)},
			{Line: "show info", Payload: []string{"x"}},
			{Line: "add map x.map <<"},
			{Line: "add map x.map <<", Payload: []string{"a b", ""}},
			{Line: "add map x.map <<", Payload: []string{"a\nb"}},
			{Line: "add map x.map <<", Payload: []string{strings.Repeat("x", haproxy.MaxCommand)}},
		} {
			if _, err := s.Do(t.Context(), []haproxy.Command{{Line: "clear map x.map"}, bad}); err == nil {
				t.Errorf("%.40q passed", bad.Line)
			}
		}
		if got := do(t, s, haproxy.Command{Line: "show map x.map"})[0].Text; !strings.HasSuffix(got, "first x") {
			t.Errorf("a command before a bad one was sent: %q", got)
		}
	})
}

// fakeSession reads two lines, answers with a fixed text, and closes unless it is to fall silent.
func fakeSession(t *testing.T, reply string, silent bool) string {
	t.Helper()
	path := filepath.Join(shortDir(t), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		in := bufio.NewReader(c)
		for range 2 {
			_, _ = in.ReadString('\n')
		}
		_, _ = io.WriteString(c, reply)
		if silent {
			_, _ = io.Copy(io.Discard, in)
		}
	}()
	return path
}

func TestSessionEndsWithoutAReply(t *testing.T) {
	for _, tt := range []struct {
		name, reply string
		silent      bool
	}{
		{"closed at once", "", false},
		{"closed after half of the replies", "\n> \n> ", false},
		{"never answered", "\n> ", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			start := time.Now()
			s, _, err := haproxy.RuntimeSocket(fakeSession(t, tt.reply, tt.silent), 300*time.Millisecond).Begin(t.Context(), nil)
			if err == nil {
				_, err = s.Do(t.Context(), []haproxy.Command{{Line: "show info"}})
				if _, again := s.Do(t.Context(), []haproxy.Command{{Line: "show info"}}); again == nil || !errors.Is(again, err) {
					t.Errorf("a broken session answers %v", again)
				}
				s.Close()
			}
			if err == nil || !tt.silent && !errors.Is(err, haproxy.ErrNoReply) || time.Since(start) > 10*time.Second {
				t.Errorf("error %v after %v", err, time.Since(start))
			}
		})
	}
}

func FuzzParseServers(f *testing.F) {
	f.Add("1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_check_result srv_check_state " +
		"srv_agent_state srv_fqdn srv_port\n3 b 11 s1 127.0.0.1 2 4 5 6 3 6 0 - 1\n")
	f.Fuzz(func(t *testing.T, text string) {
		servers, err := haproxy.ParseServers(text)
		if err == nil && len(servers) > strings.Count(text, "\n")+1 {
			t.Fatal("more servers than lines")
		}
		file, err := haproxy.StateFile(text, func(haproxy.ServerState) bool { return true })
		if err != nil {
			return
		}
		kept, err := haproxy.ParseServers(file)
		if err != nil || len(kept) != len(servers) {
			t.Fatalf("%d of %d servers are in the state file, %v", len(kept), len(servers), err)
		}
		for i, s := range kept {
			if want := servers[i]; s.Admin != 0 || s.Address() != want.Address() || s.Op != want.Op {
				t.Fatalf("in the state file %+v is %+v", want, s)
			}
		}
	})
}

func FuzzParsePatterns(f *testing.F) {
	for _, seed := range []string{"0x1 a b\n0x2 c\n", "0x1\n", "0x1 \n", "unknown\n", "New version created: 3\n", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		entries, err := haproxy.ParsePatterns(text)
		lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
		if err == nil && text != "" && len(entries) != len(lines) {
			t.Fatalf("%d entries in %d lines", len(entries), len(lines))
		}
		for i, entry := range entries {
			if _, want, _ := strings.Cut(lines[i], " "); entry != want {
				t.Errorf("line %q: entry %q", lines[i], entry)
			}
		}
		if n, err := haproxy.ParseVersionReply(text); err == nil && n < 0 {
			t.Errorf("version %d", n)
		}
	})
}
