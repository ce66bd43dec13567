package watch_test

import (
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"nuncio/internal/catalog"
	"nuncio/internal/etcd"
	"nuncio/internal/testkit"
	"nuncio/watch"
)

func as(t *testing.T, server *testkit.Etcd, user, password string) etcd.Config {
	t.Helper()
	return etcd.Config{Endpoints: []string{server.Endpoint}, User: user, PasswordFile: testkit.PasswordFile(t, password)}
}

func TestAUserWithTheRightToReadThePrefixIsEnough(t *testing.T) {
	t.Parallel()
	server := testkit.StartEtcd(t)
	server.Put("/services/web/a", "192.0.2.1:80")
	server.EnableAuth("nuncio", "right", "/services/")
	root, err := etcd.Dial(as(t, server, "root", "root"), nil)
	must(t, err)
	defer root.Close()
	put := func(key, value string) {
		t.Helper()
		_, err := root.Put(t.Context(), key, value)
		must(t, err)
	}
	r := run(t, as(t, server, "nuncio", "right"), watch.StoreOptions{})
	r.expect("web/a 192.0.2.1:80")
	put("/services/web/b", "192.0.2.2:80")
	r.expect("web/a 192.0.2.1:80", "web/b 192.0.2.2:80")

	// A restart forgets all tokens.
	server.Kill()
	server.Start()
	put("/services/web/c", "192.0.2.3:80")
	r.expect("web/a 192.0.2.1:80", "web/b 192.0.2.2:80", "web/c 192.0.2.3:80")
	if err := r.log.has("store refuses the credentials", 0); err != nil {
		t.Errorf("a forgotten token is taken for wrong credentials: %v", err)
	}

	// Later refusals do not end Run; what is known stands, and Status tells.
	_, err = root.UserChangePassword(t.Context(), "nuncio", "other")
	must(t, err)
	server.Kill()
	server.Start()
	r.logged("store refuses the credentials", 1)
	if s := r.store.Status(); !s.Synced || s.Err == "" || s.Hint == "" {
		t.Errorf("status after the password was changed: %+v", s)
	}
	r.eventually(func() error {
		if n := r.store.Status().Failures; n < 4 {
			return fmt.Errorf("%d requests were refused", n)
		}
		return nil
	})
	if err := r.log.has("store refuses the credentials", 1); err != nil {
		t.Errorf("an outage is logged more than once: %v", err)
	}
	_, err = root.UserChangePassword(t.Context(), "nuncio", "right")
	must(t, err)
	put("/services/web/c", "192.0.2.4:80")
	r.expect("web/a 192.0.2.1:80", "web/b 192.0.2.2:80", "web/c 192.0.2.4:80")
}

func TestWrongCredentialsEndTheFirstListing(t *testing.T) {
	t.Parallel()
	server := testkit.StartEtcd(t)
	server.EnableAuth("nuncio", "right", "/services/")
	for name, config := range map[string]etcd.Config{
		"wrong password":     as(t, server, "nuncio", "wrong"),
		"no user":            {Endpoints: []string{server.Endpoint}},
		"prefix not granted": as(t, server, "nuncio", "right"),
	} {
		t.Run(name, func(t *testing.T) {
			client, err := etcd.Dial(config, nil)
			must(t, err)
			defer client.Close()
			o := watch.StoreOptions{Client: client, Logger: slog.New(&lines{})}
			if name == "prefix not granted" {
				o.Keys = []string{"/config/"}
			}
			store, err := watch.NewStore(o)
			must(t, err)
			var refused *watch.CredentialsError
			if err := store.Run(t.Context(), make(chan *catalog.Snapshot)); !errors.As(err, &refused) || !etcd.IsAuthError(refused) {
				t.Errorf("Run = %v, want a CredentialsError", err)
			}
		})
	}
}

func TestNewStoreRefusesUnusableOptions(t *testing.T) {
	t.Parallel()
	client, err := etcd.Dial(etcd.Config{Endpoints: []string{"127.0.0.1:1"}}, nil)
	must(t, err)
	defer client.Close()
	for name, o := range map[string]watch.StoreOptions{
		"no client":                      {},
		"negative time":                  {Client: client, Compare: -1},
		"negative wait before the start": {Client: client, StartJitter: -1},
	} {
		if _, err := watch.NewStore(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
