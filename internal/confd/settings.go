package confd

import (
	"fmt"
	"strings"
)

// Settings are those of confd.toml that say how to reach etcd.
type Settings struct {
	Backend      string   `toml:"backend"`
	Nodes        []string `toml:"nodes"`
	Scheme       string   `toml:"scheme"`
	Prefix       string   `toml:"prefix"`
	ClientCert   string   `toml:"client_cert"`
	ClientKey    string   `toml:"client_key"`
	ClientCAKeys string   `toml:"client_cakeys"`
	BasicAuth    bool     `toml:"basic_auth"`
	Username     string   `toml:"username"`
	Password     string   `toml:"password"`
	SRVDomain    string   `toml:"srv_domain"`
	SRVRecord    string   `toml:"srv_record"`
	Insecure     bool     `toml:"client_insecure"`
}

// ParseSettings reads confd.toml. Variables of confd that name certificates are read as confd does.
func ParseSettings(text string, getenv func(string) (string, bool)) (*Settings, error) {
	s := &Settings{}
	if err := decode(SettingsFile, text, s); err != nil {
		return nil, err
	}
	fault := func(name, format string, args ...any) error {
		return &Error{SettingsFile, lineOf(text, name), fmt.Sprintf(format, args...)}
	}
	switch {
	case s.Backend != "" && s.Backend != "etcd" && s.Backend != "etcdv3":
		return nil, fault("backend", "backend %q: nuncio reads etcd (v3) only; copy the keys to etcd, or go on with confd", s.Backend)
	case s.SRVDomain != "" || s.SRVRecord != "":
		return nil, fault("srv_", "nuncio does not look etcd up by SRV records: name its members in nodes, or with --etcd-endpoints")
	case s.Insecure:
		return nil, fault("client_insecure", "nuncio always checks etcd's certificate: name the authority in client_cakeys, or with --etcd-ca")
	}
	for name, setting := range map[string]*string{"CONFD_CLIENT_CAKEYS": &s.ClientCAKeys, "CONFD_CLIENT_CERT": &s.ClientCert, "CONFD_CLIENT_KEY": &s.ClientKey} {
		if v, _ := getenv(name); *setting == "" {
			*setting = v
		}
	}
	if !s.BasicAuth {
		s.Username, s.Password = "", ""
	}
	for i, node := range s.Nodes {
		if s.Scheme != "" && !strings.Contains(node, "://") {
			s.Nodes[i] = s.Scheme + "://" + node
		}
	}
	return s, nil
}
