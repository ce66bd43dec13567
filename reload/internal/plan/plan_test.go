package plan_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nuncio/internal/haproxy"
	"nuncio/reload/internal/plan"
)

const planHead = `
global
    maxconn 100

defaults
    mode http
    timeout connect 2s
    retries 1
    timeout server 9s
    default-server inter 2s fall 3 init-addr last,libc,none

frontend f
    bind :80
    default_backend b
`

// planConfig is a whole configuration with one backend b.
func planConfig(lines string) string {
	return planHead + "\nbackend b\n    balance roundrobin\n" + lines + "\nbackend z\n    server other 10.9.9.9:1 id 1 check\n"
}

func cfg(text string, more ...string) haproxy.Files {
	content := map[string][]byte{"haproxy.cfg": []byte(text)}
	for i := 0; i < len(more); i += 2 {
		content[more[i]] = []byte(more[i+1])
	}
	files, err := haproxy.NewFiles(content)
	if err != nil {
		panic(err)
	}
	return files
}

func model(text haproxy.Text) *plan.Model {
	m, err := plan.NewModel(text)
	if err != nil {
		panic(err)
	}
	return m
}

// planFor plans for a version such as "2.6".
func planFor(version string, now, next haproxy.Files, leaving ...plan.Leaving) (*plan.Plan, string) {
	v, err := haproxy.ParseVersion([]byte("HAProxy version " + version + ".0"))
	if err != nil {
		panic(err)
	}
	byTarget := map[string]plan.Leaving{}
	for _, l := range leaving {
		byTarget[l.Target()] = l
	}
	return plan.New(v).Plan(model(now.Text(haproxy.ConfigFile)), now, next, byTarget)
}

// commands lists what a plan does, with a line "--" between phases.
func commands(p *plan.Plan) (list []string) {
	if p == nil {
		return nil
	}
	for i, phase := range p.Phases {
		if i > 0 {
			list = append(list, "--")
		}
		for _, c := range phase {
			list = append(list, c.Line)
		}
	}
	for _, f := range p.Files {
		list = append(list, fmt.Sprintf("exchange %s %s %q", f.Kind, f.Name, f.Entries))
	}
	for _, l := range p.Left {
		list = append(list, fmt.Sprintf("later %s after %v", plan.DeleteCommand(l.Target()).Line, l.Linger.Round(time.Second)))
	}
	return list
}

// Each case says how a backend's lines change, and which commands or which reason must come of it; "\n" ends a command.
func TestPlan(t *testing.T) {
	const a, b = "server a 10.0.0.1:80 id 11 weight 100 check\n", "server b 10.0.0.2:80 id 12 weight 100 check\n"
	for _, tt := range []struct {
		name, version, before, after, want, reason string
	}{
		{name: "nothing but comments, blanks and quotes", before: a + b, after: "# hello\n  server   'a' 10.0.0.1:80 id 11 weight 100 check # there\n" + b},
		{name: "a different order of the servers", before: a + b, after: b + a},
		{name: "a different order of servers without ids", before: "server m 10.0.0.3:80\nserver n 10.0.0.4:80\n", after: "server n 10.0.0.4:80\nserver m 10.0.0.3:80\n"},
		{name: "a different order for balance first with ids", before: "balance first\n" + a + b, after: "balance first\n" + b + a},
		{name: "a different order for a consistent hash with ids", before: "balance uri\nhash-type consistent\n" + a + b, after: "balance uri\nhash-type consistent\n" + b + a},
		{name: "a different order for balance first without ids", before: "balance first\nserver m 10.0.0.3:80\nserver n 10.0.0.4:80\n", after: "balance first\nserver n 10.0.0.4:80\nserver m 10.0.0.3:80\n", reason: "ids follow from it"},
		{name: "a different order for a consistent hash without ids", before: "balance uri\nhash-type consistent\nserver m 10.0.0.3:80\nserver n 10.0.0.4:80\n", after: "balance uri\nhash-type consistent\nserver n 10.0.0.4:80\nserver m 10.0.0.3:80\n", reason: "ids follow from it"},
		{name: "a different order for a stick table without ids", before: "stick on src\nserver m 10.0.0.3:80\nserver n 10.0.0.4:80\n", after: "stick on src\nserver n 10.0.0.4:80\nserver m 10.0.0.3:80\n", reason: "ids follow from it"},
		{name: "a different order for a static hash", before: "balance uri\n" + a + b, after: "balance uri\n" + b + a, reason: "balance uri goes by it"},
		{name: "a different order for static weights", before: "balance static-rr\n" + a + b, after: "balance static-rr\n" + b + a, reason: "balance static-rr goes by it"},
		{
			name: "a different order of the backup servers", before: a + "server m 10.0.0.3:80 backup\nserver n 10.0.0.4:80 backup\n",
			after: a + "server n 10.0.0.4:80 backup\nserver m 10.0.0.3:80 backup\n", reason: "order of the backup servers",
		},
		{name: "a backup server that comes first", before: a + "server m 10.0.0.3:80 backup\n", after: "server m 10.0.0.3:80 backup\n" + a},
		{
			name: "a different order of servers with one cookie", before: "server m 10.0.0.3:80 cookie x\nserver n 10.0.0.4:80 cookie x\n",
			after: "server n 10.0.0.4:80 cookie x\nserver m 10.0.0.3:80 cookie x\n", reason: "same cookie",
		},
		{
			name: "a different order of servers with cookies of their own", before: "server m 10.0.0.3:80 cookie x\nserver n 10.0.0.4:80 cookie y\n",
			after: "server n 10.0.0.4:80 cookie y\nserver m 10.0.0.3:80 cookie x\n",
		},
		{
			name: "a second server with a cookie", before: "server m 10.0.0.3:80 id 3 cookie x\n",
			after: "server n 10.0.0.4:80 id 4 cookie x\nserver m 10.0.0.3:80 id 3 cookie x\n", reason: "same cookie",
		},
		{
			name: "a new server inherits from defaults, which a command does not do by itself", before: a, after: a + b,
			want: "add server b/b 10.0.0.2:80 id 12 weight 100 inter 2s fall 3 check\nenable health b/b\nenable server b/b\n",
		},
		{
			name: "on 2.6 a new server gets the words that make it reuse connections", version: "2.6", before: a, after: a + b,
			want: "add server b/b 10.0.0.2:80 id 12 weight 100 inter 2s fall 3 check pool-max-conn -1 pool-purge-delay 5s\nenable health b/b\nenable server b/b\n",
		},
		{
			name: "a default-server counts for the lines below it only", before: a, after: "server n 10.0.0.3:80 id 13 no-check\n" + a + "server m [2001:db8::1]:80 id 14 maxconn 5\n",
			want: "add server b/n 10.0.0.3:80 id 13 weight 1 inter 2s fall 3\nenable server b/n\n" +
				"add server b/m [2001:db8::1]:80 id 14 weight 1 maxconn 5 inter 2s fall 3\nenable server b/m\n",
		},
		{name: "a new server in maintenance is not enabled", before: a, after: a + "server n 10.0.0.3:80 id 13 disabled\n", want: "add server b/n 10.0.0.3:80 id 13 weight 1 inter 2s fall 3\n"},
		{name: "moved", before: a + b, after: a + strings.Replace(b, "10.0.0.2:80", "10.0.0.9:81", 1), want: "set server b/b addr 10.0.0.9 port 81\nset server b/b health up\n"},
		{name: "moved without a check", before: a + "server n 10.0.0.3:80\n", after: a + "server n 10.0.0.4:80\n", want: "set server b/n addr 10.0.0.4 port 80\n"},
		{name: "moved in maintenance", before: a + "server n 10.0.0.3:80 check disabled\n", after: a + "server n 10.0.0.4:80 check disabled\n", want: "set server b/n addr 10.0.0.4 port 80\n"},
		{name: "moved, checked elsewhere", before: a + "server n 10.0.0.3:80 check addr 10.0.0.7\n", after: a + "server n 10.0.0.4:80 check addr 10.0.0.7\n", want: "set server b/n addr 10.0.0.4 port 80\n"},
		{
			name: "moved with its agent", before: a + "server n 10.0.0.3:80 agent-check agent-port 1\n", after: a + "server n 10.0.0.4:80 agent-check agent-port 1\n",
			want: "set server b/n addr 10.0.0.4 port 80\nset server b/n agent up\n",
		},
		{
			name: "moved, to begin as down", before: a + "server n 10.0.0.3:80 check init-state down\n", after: a + "server n 10.0.0.4:80 check init-state down\n",
			want: "set server b/n addr 10.0.0.4 port 80\n",
		},
		{name: "moved and tracked by a different server", before: a + "server n 10.0.0.3:80 check track a\n", after: a + "server n 10.0.0.4:80 check track a\n", reason: `has "track"`},
		{name: "moved to IPv6", before: a, after: strings.Replace(a, "10.0.0.1:80", "[::1]:81", 1), want: "set server b/a addr ::1 port 81\nset server b/a health up\n"},
		{name: "weight", before: a, after: strings.Replace(a, "100", "7", 1), want: "set server b/a weight 7\n"},
		{name: "drain is weight 0", before: a + b, after: a + strings.Replace(b, "100", "0", 1), want: "set server b/b weight 0\n"},
		{name: "maint is disabled", before: a + b, after: a + strings.Replace(b, "check", "check disabled", 1), want: "set server b/b state maint\n"},
		{name: "and back", before: a + strings.Replace(b, "check", "check disabled", 1), after: a + b, want: "set server b/b state ready\n"},
		{name: "maxconn", before: a + "server n 10.0.0.3:80 maxconn 1\n", after: a + "server n 10.0.0.3:80 maxconn 2\n", want: "set maxconn server b/n 2\n"},
		{
			name: "gone: drained, put into maintenance, deleted later", before: a + b, after: a,
			want: "set server b/b state drain\nset server b/b state maint\nlater del server b/b after 0s\n",
		},
		{
			name: "gone on 2.6: not deleted while a stream may try to connect", version: "2.6", before: a + b, after: a,
			want: "set server b/b state drain\nset server b/b state maint\nlater del server b/b after 7s\n",
		},
		{
			name: "new ones come before old ones leave", before: a, after: b,
			want: "add server b/b 10.0.0.2:80 id 12 weight 100 inter 2s fall 3 check\nenable health b/b\nenable server b/b\n--\n" +
				"set server b/a state drain\nset server b/a state maint\nlater del server b/a after 0s\n",
		},
		{
			name: "other words: deleted and added again while others serve", before: a + b, after: a + strings.Replace(b, "check", "check rise 9", 1),
			want: "set server b/b state drain\nset server b/b state maint\ndel server b/b\n" +
				"add server b/b 10.0.0.2:80 id 12 weight 100 inter 2s fall 3 check rise 9\nenable health b/b\nenable server b/b\n",
		},
		{name: "other words without others", before: a, after: strings.Replace(a, "check", "", 1), reason: "no other server could serve"},
		{name: "other words on 2.6", version: "2.6", before: a + b, after: a + strings.Replace(b, "check", "", 1), reason: "cannot tell when it is free"},
		{name: "a host name", before: a, after: a + "server n example.com:80\n", reason: "not an IP address"},
		{name: "an address without port", before: a, after: a + "server n 10.0.0.1\n", reason: "not an IP address"},
		{name: "a host name that moves", before: a + "server n example.com:80\n", after: a + "server n 10.0.0.3:80\n", reason: "not an IP address"},
		{name: "an environment variable", before: a, after: a + `server n "${HOST}":80` + "\n", reason: "has an environment variable"},
		{name: "an environment variable in a word", before: a, after: a + `server n 10.0.0.3:80 id 5 sni "${HOST}"` + "\n", reason: "environment variable"},
		{name: "an address that is expanded twice", before: a, after: a + "server n $HOST:80\n", reason: "not an IP address"},
		{name: "a unix socket", before: a, after: a + "server n unix@/run/x.sock\n", reason: "not an IP address"},
		{name: "an unknown word", before: a, after: a + "server n 10.0.0.3:80 frobnicate 1\n", reason: `does not know the word "frobnicate"`},
		{name: "a word behind an unknown one", before: a + "server n 10.0.0.3:80 frobnicate 1 check\n", after: a + "server n 10.0.0.3:80 frobnicate 1\n", reason: `does not know the word "frobnicate"`},
		{name: "a server with an unknown word that stays", before: a + "server n 10.0.0.3:80 frobnicate 1\n", after: strings.Replace(a, "100", "7", 1) + "server n 10.0.0.3:80 frobnicate 1\n", want: "set server b/a weight 7\n"},
		{name: "words behind an unknown one of default-server", before: "default-server frobnicate 1\n" + a, after: "default-server frobnicate 1\n" + strings.Replace(a, "check", "check disabled", 1), reason: `does not know the word "frobnicate"`},
		{name: "a weight that is not canonical", before: strings.Replace(a, "100", "010", 1), after: strings.Replace(a, "100", "000", 1), reason: `weight is "0`},
		{name: "two weights, one of them not canonical", before: strings.Replace(a, "100", "010 weight 5", 1), after: strings.Replace(a, "100", "5 weight 010", 1), reason: `weight is "010"`},
		{name: "the first address of a host name", before: a + "server n example.com:80 init-addr none\n", after: a + "server n example.com:80 init-addr libc\n", reason: "not an IP address"},
		{name: "a backup server behind an unknown word", before: a + "server m 10.0.0.4:80 frobnicate backup\n", after: a + "server n 10.0.0.3:80 backup\nserver m 10.0.0.4:80 frobnicate backup\n", reason: "several backup servers"},
		{name: "only a server that is not understood could stand in", before: a + "server n 10.0.0.3:80 frobnicate disabled\n", after: strings.Replace(a, "check", "check rise 9", 1) + "server n 10.0.0.3:80 frobnicate disabled\n", reason: "no other server could serve"},
		{name: "a word without its argument", before: a, after: a + "server n 10.0.0.3:80 id\n", reason: `word "id"`},
		{name: "a word that a dynamic server cannot have", before: a, after: a + "server n 10.0.0.3:80 id 5 namespace x\n", reason: `does not take "namespace"`},
		{name: "cookie on 2.6", version: "2.6", before: a, after: a + "server n 10.0.0.3:80 id 5 cookie x\n", reason: `does not take "cookie"`},
		{name: "cookie on 3.0", before: a, after: a + "server n 10.0.0.3:80 id 5 cookie x\n", want: "add server b/n 10.0.0.3:80 id 5 weight 1 inter 2s fall 3 cookie x\nenable server b/n\n"},
		{name: "a word of 3.2", before: a, after: a + "server n 10.0.0.3:80 id 5 init-state down\n", reason: `does not take "init-state"`},
		{name: "resolvers", before: a, after: a + "server n 10.0.0.3:80 resolvers r\n", reason: `has "resolvers"`},
		{name: "a name that is none", before: a, after: a + "server n/m 10.0.0.3:80\n", reason: "its name is not one"},
		{name: "two of a name", before: a, after: a + a, reason: `two servers "a"`},
		{name: "two of an id", before: a, after: a + strings.Replace(b, "12", "11", 1), reason: "two servers with the id 11"},
		{name: "weights beyond the limit", before: a, after: strings.Replace(a, "100", "257", 1), reason: `weight is "257"`},
		{name: "a weight that the agent sets", before: a + "server n 10.0.0.3:80 agent-check agent-port 1 weight 1\n", after: a + "server n 10.0.0.3:80 agent-check agent-port 1 weight 2\n", reason: "agent"},
		{name: "a server whose connections would be cut", before: a + "server n 10.0.0.3:80 on-marked-down shutdown-sessions\n", after: a, reason: "would cut"},
		{name: "two backup servers at once", before: a, after: a + "server m 10.0.0.4:80 backup\nserver n 10.0.0.3:80 backup\n", reason: "backup"},
		{name: "a second backup server", before: a + "server n 10.0.0.3:80 backup\n", after: a + "server m 10.0.0.4:80 backup\nserver n 10.0.0.3:80 backup\n", reason: "backup"},
		{name: "a line that is not a server line", before: a, after: a + "option httpchk\n", reason: "more than its servers"},
		{name: "a different balance", before: a, after: a + "balance leastconn\n", reason: "more than its servers"},
		{name: "a new section", before: a, after: a + "backend c\n", reason: `new section "backend c"`},
		{name: "a section with a different name", before: a + "backend x\n", after: a + "backend y\n", reason: `new section "backend y": HAProxy can add and remove backends without a reload from version 3.4 on`},
		{name: "a section that is gone", before: a + "backend x\n", after: a, reason: `section "backend x" is gone`},
		{name: "a static algorithm", before: "balance static-rr\n" + a, after: "balance static-rr\n" + a + b, reason: "balance static-rr needs a reload"},
		{name: "a static algorithm can move", before: "balance uri\n" + a, after: "balance uri\n" + strings.Replace(a, ".1:", ".7:", 1), want: "set server b/a addr 10.0.0.7 port 80\nset server b/a health up\n"},
		{name: "a static hash loses a server", before: "balance uri\n" + a + b, after: "balance uri\n" + a, reason: "needs a reload"},
		{name: "a static hash changes a weight", before: "balance uri\n" + a, after: "balance uri\n" + strings.Replace(a, "100", "9", 1), reason: "cannot change a weight"},
		{
			name: "a consistent hash", before: "balance uri\nhash-type consistent\n" + a, after: "balance uri\nhash-type consistent\n" + a + b,
			want: "add server b/b 10.0.0.2:80 id 12 weight 100 inter 2s fall 3 check\nenable health b/b\nenable server b/b\n",
		},
		{name: "a consistent hash without ids", before: "balance uri\nhash-type consistent\n" + a, after: "balance uri\nhash-type consistent\n" + a + "server n 10.0.0.3:80\n", reason: "it has no id"},
		{name: "a reference by use-server", before: "use-server b if TRUE\n" + a + b, after: "use-server b if TRUE\n" + a, reason: "refers to it"},
		{name: "a reference by srv_is_up", before: "acl x srv_is_up(b/b)\n" + a + b, after: "acl x srv_is_up(b/b)\n" + a, reason: "refers to it"},
		{name: "a reference by track", before: a + b + "server t 10.0.0.3:80 track b\n", after: a + "server t 10.0.0.3:80 track b\n", reason: "refers to it"},
		{name: "server-template", before: "server-template s 3 10.0.0.1:80\n" + a, after: "server-template s 3 10.0.0.1:80\n" + a + b, reason: "server-template"},
		{
			name: "another backup server, of which all serve", before: "option allbackups\n" + a + "server n 10.0.0.3:80 id 5 backup\n", after: "option allbackups\n" + a + "server m 10.0.0.4:80 id 6 backup\nserver n 10.0.0.3:80 id 5 backup\n",
			want: "add server b/m 10.0.0.4:80 id 6 weight 1 inter 2s fall 3 backup\nenable server b/m\n",
		},
		{name: "another backup server, of which the first serves", before: a + "server n 10.0.0.3:80 id 5 backup\n", after: a + "server m 10.0.0.4:80 id 6 backup\nserver n 10.0.0.3:80 id 5 backup\n", reason: "several backup servers"},
		{name: "dynamic cookies on 2.6", version: "2.6", before: "cookie x insert dynamic\n" + a, after: "cookie x insert dynamic\n" + a + b, reason: "no dynamic cookie"},
		{
			name: "dynamic cookies on 3.0", before: "cookie x insert dynamic\n" + a, after: "cookie x insert dynamic\n" + a + b,
			want: "add server b/b 10.0.0.2:80 id 12 weight 100 inter 2s fall 3 check\nenable health b/b\nenable server b/b\n",
		},
		{name: "a condition", before: ".if 1\n.endif\n" + a, after: ".if 1\n.endif\n" + a + b, reason: "condition"},
		{name: "line numbers", before: "http-request set-header x \"${.LINE}\"\n" + a, after: "http-request set-header x \"${.LINE}\"\n" + a + b, reason: "LINE"},
		{name: "an open quote", before: a, after: a + "server n \"10.0.0.3:80\\\n", reason: "quote"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.version == "" {
				tt.version = "3.0"
			}
			p, reason := planFor(tt.version, cfg(planConfig(tt.before)), cfg(planConfig(tt.after)))
			want := []string(nil)
			if tt.want != "" {
				want = strings.Split(strings.TrimSuffix(tt.want, "\n"), "\n")
			}
			if diff := cmp.Diff(want, commands(p)); diff != "" || !strings.Contains(reason, tt.reason) || (reason == "") != (tt.reason == "") {
				t.Errorf("reason %q, want %q; commands (-want +got):\n%s", reason, tt.reason, diff)
			}
		})
	}
}

// A command that takes a server out of service must not reach a worker that may not have its successor.
func TestOnlyAdditiveCommandsAreSentToAnyWorker(t *testing.T) {
	const a, b = "server a 10.0.0.1:80 id 11 weight 100 check\n", "server b 10.0.0.2:80 id 12 weight 100 check\n"
	for _, tt := range []struct {
		name, before, after string
		additive            bool
	}{
		{"an address", a, strings.Replace(a, ".1:", ".7:", 1), true},
		{"a new server", a, a + b, true},
		{"one comes and one goes", a, b, true},
		{"one moves and one goes", a + b, strings.Replace(a, ".1:", ".7:", 1), true},
		{"one goes", a + b, a, false},
		{"one into maintenance", a, strings.Replace(a, "check", "check disabled", 1), false},
		{"less weight", a, strings.Replace(a, "100", "9", 1), false},
		{"one is replaced", a + b, a + strings.Replace(b, "check", "check inter 3s", 1), false},
		{"one comes while a different one is replaced", a + b, a + strings.Replace(b, "check", "check inter 3s", 1) + "server c 10.0.0.3:80 id 13\n", false},
	} {
		p, reason := planFor("3.0", cfg(planConfig(tt.before)), cfg(planConfig(tt.after)))
		if reason != "" || p.Additive != tt.additive {
			t.Errorf("%s: %+v, %s", tt.name, p, reason)
		}
	}
}

func TestPlanOfFilesBesideTheConfiguration(t *testing.T) {
	const uses = planHead + "    use_backend %[path,map(m.map,b)]\n    acl x path -f l.acl\n    errorfile 503 e.http\nbackend b\n"
	before := []string{"m.map", "/a b\n", "l.acl", "/x\n", "e.http", "one\n"}
	with := func(name, content string) []string {
		after := append([]string(nil), before...)
		for i := 0; i < len(after); i += 2 {
			if after[i] == name {
				after[i+1] = content
			}
		}
		return after
	}
	for _, tt := range []struct {
		name         string
		after        []string
		want, reason string
	}{
		{name: "a map", after: with("m.map", "# c\n\n  /a  c d\n/e f\n"), want: `exchange map m.map ["/a c d" "/e f"]`},
		{name: "a map that becomes empty", after: with("m.map", ""), want: `exchange map m.map []`},
		{name: "a list", after: with("l.acl", "/x\n/y\n"), want: `exchange acl l.acl ["/x" "/y"]`},
		{name: "a key without value", after: with("m.map", "/a\n"), reason: "cannot carry"},
		{name: "no newline at the end", after: with("m.map", "/a b"), reason: "cannot carry"},
		{name: "an error page", after: with("e.http", "two\n"), reason: "not used as a map"},
		{name: "one more file", after: append(with("", ""), "n.map", "a b\n"), reason: "came or went"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, reason := planFor("3.0", cfg(uses, before...), cfg(uses, tt.after...))
			if got := strings.Join(commands(p), "\n"); got != tt.want || !strings.Contains(reason, tt.reason) || (reason == "") != (tt.reason == "") {
				t.Errorf("got %q, reason %q; want %q, %q", got, reason, tt.want, tt.reason)
			}
		})
	}
}

func TestPlanReusesALeavingServer(t *testing.T) {
	const a, b = "server a 10.0.0.1:80 id 11 weight 100 check\n", "server b 10.0.0.2:80 id 12 weight 100 check\n"
	for _, tt := range []struct{ name, version, after, want, reason string }{
		{name: "as it was", after: a + b, want: "set server b/b state ready"},
		{
			name: "elsewhere and lighter", after: a + strings.NewReplacer(".2:80", ".3:81", "100", "5").Replace(b),
			want: "set server b/b addr 10.0.0.3 port 81\nset server b/b health up\nset server b/b state ready\n--\nset server b/b weight 5",
		},
		{
			name: "with other words", after: a + strings.Replace(b, "check", "", 1),
			want: "del server b/b\nadd server b/b 10.0.0.2:80 id 12 weight 100 inter 2s fall 3\nenable server b/b",
		},
		{name: "with other words on 2.6", version: "2.6", after: a + strings.Replace(b, "check", "", 1), reason: "cannot tell"},
		{name: "in maintenance", after: a + strings.Replace(b, "check", "check disabled", 1), want: ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.version == "" {
				tt.version = "3.0"
			}
			left, _ := planFor(tt.version, cfg(planConfig(a+b)), cfg(planConfig(a)))
			p, reason := planFor(tt.version, cfg(planConfig(a)), cfg(planConfig(tt.after)), left.Left...)
			if got := strings.Join(commands(p), "\n"); got != tt.want || !strings.Contains(reason, tt.reason) || (reason == "") != (tt.reason == "") {
				t.Errorf("got %q, reason %q; want %q, %q", got, reason, tt.want, tt.reason)
			}
		})
	}
}

func TestPlanPrefersAReloadForAHugeBatch(t *testing.T) {
	servers := func(n int) haproxy.Files {
		var lines strings.Builder
		for i := range n {
			fmt.Fprintf(&lines, "server s%d 10.1.%d.%d:80 id %d\n", i, i/250, i%250, i+1)
		}
		return cfg(planConfig("balance leastconn\n" + lines.String()))
	}
	if p, reason := planFor("3.0", servers(0), servers(5000)); reason != "" || p.Commands != 10000 {
		t.Errorf("5,000 servers: reason %q", reason)
	}
	if _, reason := planFor("3.0", servers(0), servers(11000)); !strings.Contains(reason, "22000 commands") {
		t.Errorf("11,000 servers: reason %q", reason)
	}
}
