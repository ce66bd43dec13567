package etcd_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nuncio/internal/etcd"
	"nuncio/internal/testkit"
)

func TestValidateNamesTheSetting(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	pki := testkit.NewPKI(t)
	cert, key := pki.Issue("client")
	_, otherKey := pki.Issue("other")
	one := []string{"127.0.0.1:2379"}
	for name, tt := range map[string]struct {
		config etcd.Config
		want   string // "" means valid
	}{
		"no endpoint":              {etcd.Config{}, "etcd endpoints: none given"},
		"bare endpoint":            {etcd.Config{Endpoints: one}, ""},
		"URL with slash":           {etcd.Config{Endpoints: []string{"http://e:1/"}}, ""},
		"IPv6":                     {etcd.Config{Endpoints: []string{"[::1]:2379"}}, ""},
		"https and bare":           {etcd.Config{Endpoints: []string{"https://e:1", "e:2"}}, ""},
		"https and http":           {etcd.Config{Endpoints: []string{"https://e:1", "http://e:2"}}, "either all use http or all use https"},
		"no port":                  {etcd.Config{Endpoints: []string{"e"}}, `etcd endpoints: "e" has no port`},
		"URL without port":         {etcd.Config{Endpoints: []string{"http://e"}}, "has no port"},
		"port zero":                {etcd.Config{Endpoints: []string{"e:0"}}, "has the port"},
		"scheme":                   {etcd.Config{Endpoints: []string{"ftp://e:1"}}, `has the scheme "ftp"`},
		"path":                     {etcd.Config{Endpoints: []string{"http://e:1/v2"}}, "more than a scheme"},
		"comma":                    {etcd.Config{Endpoints: []string{"a:1,b:2"}}, "too many colons"},
		"blank":                    {etcd.Config{Endpoints: []string{" e:1"}}, "no usable host"},
		"CA with http":             {etcd.Config{Endpoints: []string{"http://e:1"}, CAFile: pki.CA}, "etcd CA: it has no effect"},
		"CA with bare":             {etcd.Config{Endpoints: one, CAFile: pki.CA}, ""},
		"CA missing":               {etcd.Config{Endpoints: one, CAFile: dir + "/none"}, "etcd CA: open"},
		"CA without certificate":   {etcd.Config{Endpoints: one, CAFile: file("ca", "hello")}, "holds no PEM certificate"},
		"cert without key":         {etcd.Config{Endpoints: one, CertFile: cert}, "etcd cert: given without its key"},
		"key without cert":         {etcd.Config{Endpoints: one, KeyFile: key}, "etcd key: given without its certificate"},
		"cert and another's key":   {etcd.Config{Endpoints: one, CertFile: cert, KeyFile: otherKey}, "etcd cert and key:"},
		"cert and key":             {etcd.Config{Endpoints: one, CertFile: cert, KeyFile: key}, ""},
		"user without password":    {etcd.Config{Endpoints: one, User: "u"}, "etcd user: given without a password"},
		"file without user":        {etcd.Config{Endpoints: one, PasswordFile: "p"}, "without an etcd user"},
		"password file unreadable": {etcd.Config{Endpoints: one, User: "u", PasswordFile: dir + "/none"}, "etcd password file: open"},
		"password file empty":      {etcd.Config{Endpoints: one, User: "u", PasswordFile: file("empty", "\n")}, "is empty"},
		"password file":            {etcd.Config{Endpoints: one, User: "u", PasswordFile: file("pw", "secret\n")}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			err := tt.config.Validate()
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("Validate(%+v) = %v, want %q", tt.config, err, tt.want)
			}
			if client, err := etcd.Dial(tt.config, nil); (err == nil) != (tt.want == "") {
				t.Errorf("Dial gave %v, Validate should have said the same", err)
			} else if err == nil {
				client.Close()
			}
		})
	}
}
