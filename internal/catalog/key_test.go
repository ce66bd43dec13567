package catalog_test

import (
	"strings"
	"testing"

	"nuncio/internal/catalog"
)

func TestNormalizePrefixBeginsAndEndsWithASlash(t *testing.T) {
	for in, want := range map[string]string{
		"": "/", "/": "/", "//": "/", "services": "/services/", "/services": "/services/", "/services/": "/services/", "a/b/": "/a/b/",
	} {
		if got := catalog.NormalizePrefix(in); got != want {
			t.Errorf("NormalizePrefix(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestParseKeySaysWhatAKeyLooksLike(t *testing.T) {
	for key, want := range map[string]string{
		"/services/":              "0 part(s) below the prefix; a record's key is /services/<service>/<instance>",
		"/services/web":           "1 part(s)",
		"/services/web/a/b":       "3 part(s)",
		"/services//a":            "service name: it is empty",
		"/services/web/":          "instance name: it is empty",
		"/services/../a":          `service name: ".." means a directory`,
		"/services/web/.":         `instance name: "." means a directory`,
		"/services/we b/a":        `service name: "we b" holds ' '`,
		"/services/web/a\n":       `instance name: "a\n" holds '\n'`,
		"/services/web/\xff":      `holds '�'`,
		"/services-old/web/a":     "outside the prefix /services/",
		"/services/web/" + x(256): "256 bytes; a name has at most 255",
	} {
		if _, _, err := catalog.ParseKey("/services", key); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseKey(%q) says %v, want %q", key, err, want)
		}
	}
	if service, instance, err := catalog.ParseKey("/services", "/services/a_B.1:2-3/"+x(255)); err != nil || service != "a_B.1:2-3" || instance != x(255) {
		t.Errorf("ParseKey = %q, %q, %v", service, instance, err)
	}
}

func TestKeyRefusesBadNames(t *testing.T) {
	if got, err := catalog.Key("services", "web", "a"); err != nil || got != "/services/web/a" {
		t.Errorf("Key = %q, %v", got, err)
	}
	for _, names := range [][2]string{{"", "a"}, {"web", ""}, {"we/b", "a"}, {"web", ".."}} {
		if got, err := catalog.Key("/services/", names[0], names[1]); err == nil {
			t.Errorf("Key(%q, %q) = %q, want an error", names[0], names[1], got)
		}
	}
}

func x(n int) string { return strings.Repeat("x", n) }

func FuzzParseKey(f *testing.F) {
	for _, seed := range []string{"/services/web/a", "/services/web", "/services//", "/services/./..", "/services-x/a/b", "\xff"} {
		f.Add("/services/", seed)
	}
	f.Fuzz(func(t *testing.T, prefix, key string) {
		service, instance, err := catalog.ParseKey(prefix, key)
		if err != nil {
			return
		}
		back, err := catalog.Key(prefix, service, instance)
		if err != nil || back != key {
			t.Fatalf("Key(%q, %q, %q) = %q, %v; want %q", prefix, service, instance, back, err, key)
		}
	})
}
