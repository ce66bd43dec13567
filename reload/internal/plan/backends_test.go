package plan_test

import (
	"strings"
	"testing"

	"nuncio/internal/haproxy"
	"nuncio/reload/internal/plan"
)

const profiles = `
global
    maxconn 100
defaults common
    mode http
    timeout connect 2s
    default-server inter 2s fall 3
defaults tcp-leastconn from common
    mode tcp
    balance leastconn
defaults http from common
    balance roundrobin
defaults
    timeout connect 2s
frontend f
    bind :80
    use_backend %[path,map(m.map)]
`

const (
	shop = "backend shop from http\n    server a 10.0.0.1:80 id 11 weight 100 check # there\n"
	cart = "backend cart from tcp-leastconn\n    # nothing but servers\n    server a 10.0.0.2:80 id 12\n    server b 10.0.0.3:80 id 13 disabled\n"
	mail = "backend mail from http\n    server a 10.0.0.4:25 id 14\n"
)

// Which commands a backend takes that comes or goes, or why it needs a reload.
func TestPlanOfBackends(t *testing.T) {
	const routes = "/shop shop\n"
	for _, tt := range []struct{ name, version, before, after, want, reason string }{
		{name: "nothing", before: shop + cart, after: shop + cart},
		{
			name: "one comes in front of others", before: mail, after: shop + mail,
			want: "add backend shop from http mode http\nadd server shop/a 10.0.0.1:80 id 11 weight 100 inter 2s fall 3 check\n" +
				"enable health shop/a\nenable server shop/a\npublish backend shop",
		},
		{
			name: "one comes behind others, with the mode of its own profile", before: mail, after: mail + cart,
			want: "add backend cart from tcp-leastconn mode tcp\nadd server cart/a 10.0.0.2:80 id 12 weight 1 inter 2s fall 3\nenable server cart/a\n" +
				"add server cart/b 10.0.0.3:80 id 13 weight 1 inter 2s fall 3\npublish backend cart",
		},
		{name: "one without servers", before: mail, after: mail + "backend none from http\n", want: "add backend none from http mode http\npublish backend none"},
		{
			name: "one goes", before: shop + mail, after: mail,
			want: "unpublish backend shop\nset server shop/a state drain\nset server shop/a state maint\nlater del server shop/a after 0s\nlater del backend shop after 0s",
		},
		{
			name: "one comes while one goes and one changes", before: shop + mail, after: mail + "    server b 10.0.0.5:25 id 15\nbackend none from http\n",
			want: "add backend none from http mode http\npublish backend none\nadd server mail/b 10.0.0.5:25 id 15 weight 1 inter 2s fall 3\nenable server mail/b\n--\n" +
				"unpublish backend shop\nset server shop/a state drain\nset server shop/a state maint\nlater del server shop/a after 0s\nlater del backend shop after 0s",
		},
		{name: "before 3.4", version: "3.2", before: mail, after: mail + shop, reason: "from version 3.4 on"},
		{name: "one goes before 3.4", version: "3.2", before: mail + shop, after: mail, reason: "from version 3.4 on"},
		{name: "two in a different order", before: shop + mail, after: mail + shop, reason: "stands in a different place"},
		{name: "without a profile", before: mail, after: mail + "backend x\n    server a 10.0.0.1:80\n", reason: `"from" no defaults section`},
		{name: "with a line of its own", before: mail, after: mail + shop + "    option httpchk\n", reason: "has lines other than servers"},
		{name: "one goes that has a line of its own", before: mail + shop + "    option httpchk\n", after: mail, reason: "has lines other than servers"},
		{name: "with a profile of a different kind", before: mail, after: mail + "defaults new from http\nbackend x from new\n", reason: "nothing but backends"},
		{name: "with a changed profile", before: shop, after: strings.Replace(shop, "from http", "from tcp-leastconn", 1), reason: "more than its servers"},
		{name: "a frontend", before: mail, after: mail + "frontend g\n    bind :81\n", reason: "nothing but backends"},
		{name: "a listener", before: mail, after: mail + "listen l from http\n    bind :81\n", reason: "nothing but backends"},
		{name: "a host name", before: mail, after: mail + "backend x from http\n    server a example.com:80\n", reason: "not an IP address"},
		{name: "sessions that would be cut", before: mail + "backend x from http\n    server a 10.0.0.1:80 on-marked-down shutdown-sessions\n", after: mail, reason: "would cut"},
		{name: "named by a rule", before: mail + "frontend g\n    bind :81\n    use_backend shop if TRUE\n" + shop, after: mail + "frontend g\n    bind :81\n    use_backend shop if TRUE\n", reason: `"frontend g" refers to it`},
		{name: "named as the default", before: mail + "frontend g\n    bind :81\n    default_backend shop\n" + shop, after: mail + "frontend g\n    bind :81\n    default_backend shop\n", reason: `"frontend g" refers to it`},
		{name: "named by an expression", before: mail + "frontend g\n    bind :81\n    http-request deny if { nbsrv(shop) lt 1 }\n" + shop, after: mail + "frontend g\n    bind :81\n    http-request deny if { nbsrv(shop) lt 1 }\n", reason: `"frontend g" refers to it`},
		{name: "named as a table", before: mail + "frontend g\n    bind :81\n    http-request track-sc0 src table shop\n" + shop, after: mail + "frontend g\n    bind :81\n    http-request track-sc0 src table shop\n", reason: `"frontend g" refers to it`},
		{name: "named by a server that tracks one of its own", before: mail + "    server t 10.0.0.9:1 track shop/a\n" + shop, after: mail + "    server t 10.0.0.9:1 track shop/a\n", reason: `"backend mail" refers to it`},
		{name: "a name that the environment decides", before: mail + "frontend g\n    bind :81\n    default_backend \"${X}\"\n" + shop, after: mail + "frontend g\n    bind :81\n    default_backend \"${X}\"\n", reason: `"frontend g" refers to it`},
		{name: "the name of a frontend", before: mail + "frontend shop\n    bind :81\n", after: mail + "frontend shop\n    bind :81\n" + shop, reason: "has the same name"},
		{name: "two defaults sections of the name", before: "defaults http\n    mode http\n" + mail, after: "defaults http\n    mode http\n" + mail + shop, reason: `2 defaults sections "http"`},
		{name: "a mode that is neither HTTP nor TCP", before: "defaults l\n    mode log\n", after: "defaults l\n    mode log\nbackend x from l\n", reason: `its mode is "log"`},
		{name: "defaults sections that are forgotten", before: "global\n    tune.defaults.purge\n", after: "global\n    tune.defaults.purge\n" + shop, reason: "tune.defaults.purge"},
		{name: "an algorithm that takes no servers", before: "defaults s from common\n    balance source\n", after: "defaults s from common\n    balance source\nbackend x from s\n    server a 10.0.0.1:80 id 1\n", reason: "needs a reload for a new server"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.version == "" {
				tt.version = "3.4"
			}
			p, reason := planFor(tt.version, cfg(profiles+tt.before, "m.map", routes), cfg(profiles+tt.after, "m.map", routes))
			if got := strings.Join(commands(p), "\n"); got != tt.want || !strings.Contains(reason, tt.reason) || (reason == "") != (tt.reason == "") {
				t.Errorf("reason %q, want %q; got\n%s\nwant\n%s", reason, tt.reason, got, tt.want)
			}
			if reason == "" && p.Commands > 0 && p.Additive != strings.HasPrefix(tt.want, "add ") {
				t.Errorf("the first phase is additive: %v", p.Additive)
			}
		})
	}
}

// What is routed to is there before the route; checks, which may read maps too, begin behind them.
func TestMapsChangeBetweenWhatComesAndWhatGoes(t *testing.T) {
	p, reason := planFor("3.4", cfg(profiles+shop, "m.map", "/shop shop\n"), cfg(profiles+"backend new from http\n    server a 10.0.0.1:80 id 1 check\n", "m.map", "/new new\n"))
	if reason != "" || p.FilesAfter != 1 || len(p.Phases) != 2 || len(p.Files) != 1 {
		t.Fatalf("%+v, %s", p, reason)
	}
	want := "add backend new from http mode http\nadd server new/a 10.0.0.1:80 id 1 weight 1 inter 2s fall 3 check\nenable server new/a\npublish backend new\n--\n" +
		"enable health new/a\nunpublish backend shop\nset server shop/a state drain\nset server shop/a state maint\n" +
		"exchange map m.map [\"/new new\"]\nlater del server shop/a after 0s\nlater del backend shop after 0s"
	if got := strings.Join(commands(p), "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// A backend that comes back while HAProxy still has it is published again.
func TestPlanReusesALeavingBackend(t *testing.T) {
	left, _ := planFor("3.4", cfg(profiles+shop), cfg(profiles))
	for _, tt := range []struct{ name, after, want string }{
		{name: "as it was", after: shop, want: "set server shop/a state ready\n--\npublish backend shop"},
		{
			name: "with a different server", after: strings.Replace(shop, "server a 10.0.0.1:80 id 11", "server z 10.0.0.9:80 id 99", 1),
			want: "add server shop/z 10.0.0.9:80 id 99 weight 100 inter 2s fall 3 check\nenable health shop/z\nenable server shop/z\npublish backend shop",
		},
		{name: "with other settings", after: strings.Replace(shop, "from http", "from tcp-leastconn", 1), want: "del server shop/a\ndel backend shop\nadd backend shop from tcp-leastconn mode tcp\n" +
			"add server shop/a 10.0.0.1:80 id 11 weight 100 inter 2s fall 3 check\nenable health shop/a\nenable server shop/a\npublish backend shop"},
	} {
		p, reason := planFor("3.4", cfg(profiles), cfg(profiles+tt.after), left.Left...)
		if got := strings.Join(commands(p), "\n"); got != tt.want || reason != "" {
			t.Errorf("%s: reason %q; got\n%s\nwant\n%s", tt.name, reason, got, tt.want)
		}
		if reason == "" && (p.Returned[0] != "shop" || p.Additive == strings.HasPrefix(tt.want, "del ")) {
			t.Errorf("%s: returned %q, additive %v", tt.name, p.Returned, p.Additive)
		}
	}
}

func TestABackendIsConfirmedByWhatHAProxyShows(t *testing.T) {
	p, _ := planFor("3.4", cfg(profiles+mail), cfg(profiles+shop))
	reply := func(status, mode string) haproxy.Reply {
		return haproxy.Reply{Text: "# pxname,svname,status,mode,\nshop,BACKEND," + status + "," + mode + ",\nmail,BACKEND," + status + "," + mode + ",\n"}
	}
	gone := haproxy.Reply{Text: "# pxname,svname,status,mode,\n"}
	for _, tt := range []struct {
		name string
		shop haproxy.Reply
		mail haproxy.Reply
		ok   bool
	}{
		{"as planned", reply("UP", "http"), reply("UP (UNPUB)", "http"), true},
		{"deleted by now", reply("DOWN", "http"), gone, true},
		{"not published", reply("UP (UNPUB)", "http"), gone, false},
		{"not there", gone, gone, false},
		{"of the wrong mode", reply("UP", "tcp"), gone, false},
		{"still published", reply("UP", "http"), reply("UP", "http"), false},
		{"not a table", haproxy.Reply{Text: "Permission denied"}, gone, false},
	} {
		if err := p.CheckBackends([]haproxy.Reply{tt.shop, tt.mail}); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if n := len(p.BackendCommands()); n != 2 {
		t.Errorf("%d commands", n)
	}
}

func TestFixedBackendsHaveAReason(t *testing.T) {
	v, _ := haproxy.ParseVersion([]byte("HAProxy version 3.4.0"))
	var found []string
	plan.New(v).FixedBackends(model(haproxy.NewText(profiles+shop+"backend x\n    balance first\n"+mail)), func(name, reason string) {
		found = append(found, name+": "+reason)
	})
	if len(found) != 1 || !strings.HasPrefix(found[0], `x: it says "from" no defaults section`) {
		t.Errorf("%q", found)
	}
}
