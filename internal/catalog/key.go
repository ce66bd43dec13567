package catalog

import (
	"errors"
	"fmt"
	"strings"
)

// MaxNameBytes is the longest name of a service or an instance.
const MaxNameBytes = 255

// NormalizePrefix returns the canonical form of a key prefix: it begins and ends with a slash, so that "/services" never
// matches "/services-old". The empty prefix becomes "/", the whole store.
func NormalizePrefix(prefix string) string {
	if inner := strings.Trim(prefix, "/"); inner != "" {
		return "/" + inner + "/"
	}
	return "/"
}

// Key returns the key of a record: prefix, service, a slash, instance.
func Key(prefix, service, instance string) (string, error) {
	if err := CheckName(service); err != nil {
		return "", fmt.Errorf("service name: %w", err)
	}
	if err := CheckName(instance); err != nil {
		return "", fmt.Errorf("instance name: %w", err)
	}
	return NormalizePrefix(prefix) + service + "/" + instance, nil
}

// ParseKey splits a record's key. Its error is a sentence fragment that says what a key looks like.
func ParseKey(prefix, key string) (service, instance string, err error) {
	prefix = NormalizePrefix(prefix)
	rest, ok := strings.CutPrefix(key, prefix)
	if !ok {
		return "", "", fmt.Errorf("key %s is outside the prefix %s", quote(key), prefix)
	}
	service, instance, ok = strings.Cut(rest, "/")
	if !ok || strings.Contains(instance, "/") {
		return "", "", fmt.Errorf("key %s has %d part(s) below the prefix; a record's key is %s<service>/<instance>",
			quote(key), parts(rest), prefix)
	}
	if err := CheckName(service); err != nil {
		return "", "", fmt.Errorf("service name: %w", err)
	}
	if err := CheckName(instance); err != nil {
		return "", "", fmt.Errorf("instance name: %w", err)
	}
	return service, instance, nil
}

// CheckName returns an error unless the name may be that of a service or an instance: 1 to 255 bytes of [A-Za-z0-9_.:-],
// and neither "." nor "..", because names become parts of file paths in templates.
func CheckName(name string) error {
	switch {
	case name == "":
		return errors.New("it is empty; a name has 1 to 255 characters of A-Z a-z 0-9 _ . : -")
	case name == "." || name == "..":
		return fmt.Errorf("%q means a directory and cannot be a name", name)
	case len(name) > MaxNameBytes:
		return fmt.Errorf("%s has %d bytes; a name has at most %d", quote(name), len(name), MaxNameBytes)
	}
	for _, r := range name {
		if !nameRune(r) {
			return fmt.Errorf("%s holds %q; a name is made of A-Z a-z 0-9 _ . : -", quote(name), r)
		}
	}
	return nil
}

func nameRune(r rune) bool {
	return alnum(r) || r == '_' || r == '.' || r == ':' || r == '-'
}

func alnum(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
}

func parts(rest string) int {
	if rest == "" {
		return 0
	}
	return strings.Count(rest, "/") + 1
}
