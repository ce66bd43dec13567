package plan_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nuncio/internal/haproxy"
	"nuncio/reload/internal/plan"
)

// partFor plans what can be done of a change that needs a reload.
func partFor(t *testing.T, now, next haproxy.Files) (*plan.Plan, haproxy.Files) {
	t.Helper()
	v, err := haproxy.ParseVersion([]byte("HAProxy version 3.0.0"))
	if err != nil {
		t.Fatal(err)
	}
	if _, reason := planFor("3.0", now, next); reason == "" {
		t.Fatal("no reload is needed: there is nothing to part")
	}
	return plan.New(v).PlanPart(model(now.Text(haproxy.ConfigFile)), now, next, nil)
}

// Each case changes texts in a configuration by replacing; the part that commands can do is the same with fewer replacements.
func TestPlanPart(t *testing.T) {
	const before = `
defaults
    mode http
    default-server inter 2s
frontend f
    bind :80
    default_backend a
backend a
    balance roundrobin
    server x 10.0.0.1:80 id 11
    server y 10.0.0.2:80 id 12
backend b
    balance source
    server x 10.0.1.1:80 id 11
backend c
    server x 10.0.2.1:80 id 11
    server z 10.0.2.2:80 id 12 cookie k
backend d
    server x 10.0.3.1:80 id 11
`
	const inA, inC = "set server a/x addr 10.9.0.1 port 80", "set server c/x addr 10.9.2.1 port 80"
	moveA, moveC := []string{"10.0.0.1", "10.9.0.1"}, []string{"10.0.2.1", "10.9.2.1"}
	newService := []string{"backend c\n", "backend bb\n    server x 10.5.5.5:80 id 11\nbackend c\n"}
	for _, tt := range []struct {
		name       string
		part, rest [][]string
		want       []string
	}{
		{name: "a new section between two that change", part: [][]string{moveA, moveC}, rest: [][]string{newService}, want: []string{inA, inC}},
		{name: "a section that goes", part: [][]string{moveA, moveC}, rest: [][]string{{"backend b\n    balance source\n    server x 10.0.1.1:80 id 11\n", ""}}, want: []string{inA, inC}},
		{name: "a section that moves", part: [][]string{moveC}, rest: [][]string{
			{"backend b\n    balance source\n    server x 10.0.1.1:80 id 11\n", ""}, {"backend d\n", "backend b\n    balance source\n    server x 10.0.1.1:80 id 11\nbackend d\n"},
		}, want: []string{inC}},
		{name: "the frontend", part: [][]string{moveA}, rest: [][]string{{"bind :80", "bind :81"}}, want: []string{inA}},
		{name: "what the servers inherit", part: [][]string{moveA}, rest: [][]string{{"inter 2s", "inter 9s"}}, want: []string{inA}},
		{name: "servers that no command changes", part: [][]string{moveA}, rest: [][]string{{"10.0.1.1:80 id 11", "10.0.1.1:80 id 11\n    server y 10.0.1.2:80 id 12"}}, want: []string{inA}},
		{name: "servers of which commands change only some", part: [][]string{moveA}, rest: [][]string{moveC, {"cookie k", "cookie l"}, {"id 12 cookie", "id 13 cookie"}, {"10.0.2.2:80", "name.example:80"}}, want: []string{inA}},
		{name: "a setting of the same section", rest: [][]string{moveA, {"balance roundrobin", "balance leastconn"}}},
		{name: "nothing besides", rest: [][]string{newService}},
		{name: "a condition around everything", rest: [][]string{moveA, {"frontend f\n", ".if version_atleast(2.4)\nfrontend f\n"}, {"backend a\n", ".endif\nbackend a\n"}}},
		{name: "a server that comes and one that leaves", part: [][]string{{"10.0.0.2:80 id 12\n", "10.0.0.2:80 id 12\n    server w 10.0.0.3:80 id 13\n"}, {"    server x 10.0.0.1:80 id 11\n", ""}}, rest: [][]string{newService}, want: []string{
			"add server a/w 10.0.0.3:80 id 13 weight 1 inter 2s", "enable server a/w", "--", "set server a/x state drain", "set server a/x state maint", "later del server a/x after 0s",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			replace := func(text string, by [][]string) string {
				for _, pair := range by {
					if !strings.Contains(text, pair[0]) {
						t.Fatalf("%q is not there", pair[0])
					}
					text = strings.Replace(text, pair[0], pair[1], 1)
				}
				return text
			}
			part := replace(before, tt.part)
			p, files := partFor(t, cfg(before, "m.map", "a 1\n"), cfg(replace(part, tt.rest), "m.map", "a 2\n"))
			if diff := cmp.Diff(tt.want, commands(p)); diff != "" {
				t.Errorf("commands (-want +got):\n%s", diff)
			}
			if p == nil {
				return
			}
			if diff := cmp.Diff(cfg(part, "m.map", "a 1\n").Digest(), files.Digest()); diff != "" {
				t.Errorf("files (-want +got):\n%s", cmp.Diff(part, string(files.Config())))
			}
			if diff := cmp.Diff(model(haproxy.NewText(part)).Texts(), p.Next.Texts()); diff != "" {
				t.Errorf("sections (-want +got):\n%s", diff)
			}
		})
	}
}

// A server line may name a file, which waits with the reload.
func TestPlanPartLeavesServersWhoseFilesWait(t *testing.T) {
	before := planConfig("server a 10.0.0.1:80 id 11\n")
	next := planConfig("server a 10.0.0.1:80 id 11\nserver b 10.0.0.2:80 id 12 ssl verify required ca-file new.pem\n")
	if p, _ := partFor(t, cfg(before), cfg(next, "new.pem", "x\n")); p != nil {
		t.Errorf("planned %q", commands(p))
	}
	if p, reason := planFor("3.0", cfg(before), cfg(next)); p == nil {
		t.Errorf("with the file as it is: %s", reason)
	}
}
