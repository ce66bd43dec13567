package haproxy

import "strings"

// ServerKeyword is a word of a server line.
type ServerKeyword struct {
	Args int // number of words that follow it and belong to it
	// Dynamic is whether "add server" accepts it.
	Dynamic bool
}

// since is the first version whose "add server" accepts a word.
type since struct{ major, minor int }

var (
	since26 = since{2, 6}
	since30 = since{3, 0}
	since32 = since{3, 2}
	never   = since{999, 0}
)

// The words of a server line by number of arguments and by the version that allows them for dynamic servers. A word
// that is missing here only causes a reload.
var serverWords = map[since][2]string{
	since26: {
		`agent-check allow-0rtt backup check check-send-proxy check-ssl check-via-socks4 force-sslv3 force-tlsv10
		 force-tlsv11 force-tlsv12 force-tlsv13 no-backup no-send-proxy no-send-proxy-v2 no-ssl-reuse no-sslv3 no-tfo
		 no-tls-tickets no-tlsv10 no-tlsv11 no-tlsv12 no-tlsv13 send-proxy send-proxy-v2 send-proxy-v2-ssl
		 send-proxy-v2-ssl-cn ssl tfo tls-tickets`,
		`addr agent-addr agent-inter agent-port agent-send alpn ca-file check-alpn check-proto check-sni ciphers
		 ciphersuites crl-file crt downinter error-limit fall fastinter id inter maxconn maxqueue minconn npn observe on-error
		 on-marked-down on-marked-up pool-low-conn pool-max-conn pool-purge-delay port proto proxy-v2-options rise slowstart
		 sni source ssl-max-ver ssl-min-ver verify verifyhost weight ws`,
	},
	since30: {``, `client-sigalgs cookie curves guid hash-key pool-conn-name shard sigalgs`},
	since32: {`check-reuse-pool strict-maxconn`, `check-pool-conn-name idle-ping init-state`},
	never: {
		`disabled enabled no-agent-check no-check no-check-send-proxy no-check-ssl no-send-proxy-v2-ssl
		 no-send-proxy-v2-ssl-cn no-ssl no-verifyhost non-stick ssl-reuse stick`,
		`init-addr log-bufsize log-proto max-reuse namespace redir resolve-net resolve-opts resolve-prefer
		 resolvers socks4 tcp-ut track`,
	},
}

// ServerKeywords is a table of the words of a server line for one version.
type ServerKeywords map[string]ServerKeyword

// KeywordsOf returns the table for a version.
func KeywordsOf(v Version) ServerKeywords {
	table := ServerKeywords{}
	for first, byArgs := range serverWords {
		for args, words := range byArgs {
			for word := range strings.FieldsSeq(words) {
				table[word] = ServerKeyword{Args: args, Dynamic: v.AtLeast(first.major, first.minor)}
			}
		}
	}
	return table
}

// HelpOnServers is the command with which 3.2 and later list the words that "add server" accepts; earlier ones refuse
// it.
const HelpOnServers = "add server help"

// WithHelp returns the table as changed by the reply to HelpOnServers, and whether the reply was a list. Listed words that
// are not in the table stay unknown, because the list does not say how many arguments they have.
func (k ServerKeywords) WithHelp(help string) (ServerKeywords, bool) {
	head, list, _ := strings.Cut(help, "\n")
	listed := map[string]bool{}
	for word := range strings.FieldsSeq(list) {
		listed[word] = true
	}
	// A reply without these is not the list.
	if !strings.HasSuffix(head, ":") || !listed["weight"] || !listed["check"] {
		return k, false
	}
	changed := make(ServerKeywords, len(k))
	for word, known := range k {
		changed[word] = ServerKeyword{Args: known.Args, Dynamic: listed[word]}
	}
	return changed, true
}

// IsDynamicBalance reports whether servers can be added at run time to a backend with these arguments of "balance" and
// "hash-type"; no arguments mean HAProxy's default. Hashes without "consistent" use a table that is computed once.
func IsDynamicBalance(balance, hashType string) bool {
	algorithm, _, _ := strings.Cut(balance, "(")
	switch algorithm {
	case "", "roundrobin", "leastconn", "random", "first", "sticky":
		return true
	case "source", "uri", "url_param", "hdr", "hash", "rdp-cookie":
		return hashType == "consistent"
	}
	return false
}
