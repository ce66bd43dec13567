package plan_test

import (
	"fmt"
	"testing"

	"nuncio/internal/haproxy"
	"nuncio/reload/internal/plan"
)

// After a change in place the servers that changed must be as they should; of the others a plan knows nothing.
func TestConfirmLooksAtTheServersThatChanged(t *testing.T) {
	const lines = "server a 10.0.0.%d:80 id 11\nserver b 10.0.0.2:80 id 12\nserver ab 10.0.0.3:80 id 13\n"
	p, reason := planFor("3.0", cfg(planConfig(fmt.Sprintf(lines, 1))), cfg(planConfig(fmt.Sprintf(lines, 9))))
	if p == nil || len(p.Sections) != 1 {
		t.Fatal(reason)
	}
	planner := plan.New(haproxy.Version{Major: 3})
	for _, tt := range []struct{ a, b, want string }{
		{"10.0.0.9", "10.0.0.2", "[]"},
		{"10.0.0.9", "10.0.0.7", "[]"},
		{"10.0.0.1", "10.0.0.2", "[server b/a: its address is 10.0.0.1 port 80, not 10.0.0.9:80]"},
		{"", "10.0.0.2", "[server b/a: it is missing]"},
	} {
		text := "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_time_since_last_change srv_check_status " +
			"srv_check_result srv_check_health srv_check_state srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord\n"
		for id, server := range map[int][2]string{11: {"a", tt.a}, 12: {"b", tt.b}, 13: {"ab", "10.0.0.3"}} {
			if server[1] != "" {
				text += fmt.Sprintf("3 b %d %s %s 2 0 1 1 10 1 0 2 0 0 0 1 - 80 -\n", id, server[0], server[1])
			}
		}
		drift, err := planner.Confirm(p, p.Sections[0], haproxy.Reply{Text: text}, nil)
		if got := fmt.Sprint(drift); err != nil || got != tt.want {
			t.Errorf("a at %q, b at %q: %s, %v; want %s", tt.a, tt.b, got, err, tt.want)
		}
	}
}
