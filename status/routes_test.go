package status_test

import (
	"testing"

	"nuncio/internal/haproxy"
	"nuncio/status"
)

// shippedRules is how the shipped templates choose a backend.
const shippedRules = `frontend f
	http-request set-var(txn.host) req.hdr(host),field(1,:),lower
	http-request set-var(txn.service) var(txn.host),concat(,txn.path,/),map_beg(maps/routes.map)
	http-request set-var(txn.service) var(txn.path),concat(/),map_beg(maps/routes.map) if !{ var(txn.service) -m found }
	use_backend %[var(txn.service)] if { var(txn.service) -m found }
`

// TestABackendIsUnreachableOnlyIfTheFilesProveIt asks of each configuration whether anything leads to backend beta. Where
// something decides that the files do not show, nothing may be claimed.
func TestABackendIsUnreachableOnlyIfTheFilesProveIt(t *testing.T) {
	const alone = "www.example.com/ alpha\n# beta is not served under www.example.com/: alpha is.\n"
	for _, c := range []struct {
		name, config, routes string
		unreachable          bool
	}{
		{"no rule at all", "frontend f\n\tbind :80\n", "", true},
		{"a rule for another one", "frontend f\n\tuse_backend alpha if { path /beta }\n\tdefault_backend alpha\n", "", true},
		{"a rule under a condition", "frontend f\n\tuse_backend beta if { path /beta }\n", "", false},
		{"the default", "frontend f\n\tdefault_backend \"beta\" # as ever\n", "", false},
		{"the default in a section of defaults", "defaults\n\tdefault_backend beta\n", "", false},
		{"a listen section is its own frontend", "listen beta\n\tbind :80\n", "", false},
		{"a rule in a comment", "frontend f\n\t# use_backend beta\n", "", true},
		{"a target of logs", "global\n\tlog backend@beta local0\n", "", false},
		{"a name from the environment", "frontend f\n\tdefault_backend \"$BACKEND\"\n", "", false},
		{"a listen section named by the environment", "listen \"$NAME\"\n", "", false},
		{"a text that does not lex", "frontend f\n\tuse_backend 'beta\n", "", false},

		{"the shipped rules and no entry", shippedRules, alone, true},
		{"the shipped rules and an entry", shippedRules, alone + "beta.example.com/  beta\n", false},
		{"the shipped rules and a variable of the operator's", shippedRules + "\thttp-request set-var-fmt(txn.log) %[src]\n", alone, true},
		{"a map asked in the rule", "frontend f\n\tuse_backend %[req.hdr(host),lower,map(maps/routes.map)]\n", alone, true},
		{"what a map answers otherwise", "frontend f\n\tuse_backend %[req.hdr(host),map(maps/routes.map,beta)]\n", alone, false},
		{"a constant", "frontend f\n\tuse_backend %[str(beta)]\n", alone, false},

		{"a map outside the generation", "frontend f\n\tuse_backend %[req.hdr(host),map(/etc/other.map)]\n", alone, false},
		{"a path that begins elsewhere", "global\n\tdefault-path origin /etc\n" + shippedRules, alone, false},
		{"a map that requests change", shippedRules + "\thttp-request set-map(maps/routes.map) %[src] x\n", alone, false},
		{"a name that is a request's own", "frontend f\n\tuse_backend %[req.hdr(x-backend)]\n", alone, false},
		{"a name put together", "frontend f\n\tuse_backend be-%[req.hdr(host),map(maps/routes.map)]\n", alone, false},
		{"an answer that is changed", "frontend f\n\tuse_backend %[req.hdr(host),map(maps/routes.map),lower]\n", alone, false},
		{"a variable that is a request's own", shippedRules + "\thttp-request set-var(txn.service) req.hdr(x)\n", alone, false},
		{"a variable set on the way", shippedRules + "\thttp-request set-header x %[req.hdr(y),set-var(txn.service)]\n", alone, false},
		{"a variable set by a format", shippedRules + "\thttp-request set-var-fmt(txn.service) %[src]\n", alone, false},
		{"converters as words of their own", shippedRules + "\thttp-request set-var(txn.service) path map(maps/routes.map) lower\n", alone, false},
		{"a variable of the process", "frontend f\n\tuse_backend %[var(proc.service)]\n", alone, false},
		{"Lua", "global\n\tlua-load x.lua\n" + shippedRules, alone, false},
		{"Lua that can choose nothing", "global\n\tlua-load x.lua\nfrontend f\n\tdefault_backend alpha\n", alone, true},
		{"an agent beside HAProxy", "frontend f\n\tfilter spoe config x.cfg\n\tdefault_backend alpha\n", alone, false},
		{"variables set in a circle", "frontend f\n\thttp-request set-var(txn.a) var(txn.a)\n\tuse_backend %[var(txn.a)]\n", alone, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			files, err := haproxy.NewFiles(map[string][]byte{
				haproxy.ConfigFile: []byte(c.config + "backend alpha\nbackend beta\n\tserver a 192.0.2.7:80\n"), "maps/routes.map": []byte(c.routes),
			})
			if err != nil {
				t.Fatal(err)
			}
			if got := status.Unreachable(files, "beta"); got != c.unreachable {
				t.Errorf("nothing leads to backend beta: got %v, want %v, with\n%s\nand maps/routes.map\n%s", got, c.unreachable, c.config, c.routes)
			}
		})
	}
}
