package status_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"nuncio/internal/testkit"
	"nuncio/status"
)

// TestTheHeadlineCountsWhatIsDown has a service without an instance that is up, one with one of two, and one that is well.
func TestTheHeadlineCountsWhatIsDown(t *testing.T) {
	w := newEnv(t, runHAProxy(t, "backend alpha\n\tserver a 127.0.0.3:3\n"+
		"backend beta\n\tserver a 127.0.0.4:4\n\tserver b 127.0.0.5:1 check inter 100ms fall 1\n"+
		"backend gamma\n\tserver a 127.0.0.6:1 check inter 100ms fall 1\n"))
	w.put("alpha/a", "127.0.0.3:3", "beta/a", "127.0.0.4:4", "beta/b", "127.0.0.5:1", "gamma/a", "127.0.0.6:1")
	var page status.Page
	testkit.Eventually(t, 20*time.Second, func() error {
		page = get[status.Page](t, w.URL+"/v1/services?limit=0")
		if page.Down != 2 || !slices.Equal(page.Without, []string{"gamma"}) || len(page.Services) != 0 {
			return fmt.Errorf("got %+v, want two down and gamma without any", page)
		}
		return nil
	})
	page = get[status.Page](t, w.URL+"/v1/services")
	var got []string
	for _, s := range page.Services {
		got = append(got, s.Name)
	}
	if !slices.Equal(got, []string{"gamma", "beta", "alpha"}) || page.Services[1].Up != 1 || page.Services[1].Down != 1 {
		t.Errorf("got %q and %+v; want the services in need first, and beta with one up and one down", got, page.Services)
	}
	body, err := testkit.Get(w.URL + "/")
	if err != nil || !strings.Contains(body, `<a href="/?q=gamma#services">gamma</a> has no instance that gets traffic.`) ||
		!strings.Contains(body, "2 of 4 instances</a> fail their health checks") {
		t.Errorf("the page's headline: %v\n%s", err, body)
	}
}
