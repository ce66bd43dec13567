package process

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func addresses(config string) []string {
	out := []string{}
	for _, b := range binds([]byte(config), nil) {
		if !b.addr.Addr().IsValid() {
			out = append(out, fmt.Sprintf("name:%d", b.addr.Port()))
			continue
		}
		out = append(out, b.addr.String())
	}
	return out
}

func TestBindLines(t *testing.T) {
	for _, c := range []struct {
		line string
		want []string
	}{
		{"bind :80", []string{"0.0.0.0:80"}},
		{"bind *:80 ssl crt x", []string{"0.0.0.0:80"}},
		{"bind 127.0.0.1:80,127.0.0.2:81", []string{"127.0.0.1:80", "127.0.0.2:81"}},
		{"bind :::80 v4v6", []string{"[::]:80"}},
		{"bind [::1]:80", []string{"[::1]:80"}},
		{"bind ipv4@:80", []string{"0.0.0.0:80"}},
		{"bind ipv6@:80", []string{"[::]:80"}},
		{"bind 10.0.0.1:8000-8002", []string{"10.0.0.1:8000", "10.0.0.1:8001", "10.0.0.1:8002"}},
		{`bind "127.0.0.1:80"`, []string{"127.0.0.1:80"}},
		{"bind unix@/run/x.sock", nil},
		{"bind /run/x.sock", nil},
		{"bind fd@3", nil},
		{"bind abns@x", nil},
		{"bind quic4@:443", nil},
		{"bind localhost:80", []string{"name:80"}},
		{"bind ipv6@my-host_1.example.com:80-81", []string{"name:80", "name:81"}},
		{"bind 10.1:80", nil},
		{"bind fe80::1%eth0:80", nil},
		{`bind '$HOST':80`, nil},
		{"bind 10.0.0.1:80 transparent", nil},
		{"bind :80 namespace blue", nil},
		{"bind :0", nil},
		{"bind :80-70", nil},
		{"bind :99999", nil},
		{"bind", nil},
		{"# bind :80", nil},
	} {
		t.Run(c.line, func(t *testing.T) {
			got := addresses("frontend f\n " + c.line + "\n")
			if !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
	got := addresses("global\n stats socket ipv4@127.0.0.1:9999 level admin\n stats socket /x\nbackend b\n server bind :80\n")
	if diff := cmp.Diff([]string{"127.0.0.1:9999"}, got); diff != "" {
		t.Errorf("global section: %s", diff)
	}
}
