package catalog_test

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"nuncio/internal/catalog"
)

func inst(host string, port int, change ...func(*catalog.Instance)) *catalog.Instance {
	i := &catalog.Instance{
		Name: "a", Host: host, Port: port, Weight: 100, State: catalog.StateReady, Meta: map[string]string{},
	}
	for _, c := range change {
		c(i)
	}
	return i
}

var ignoreID = cmpopts.IgnoreFields(catalog.Instance{}, "ID")

func TestDecodeAcceptsEveryFormOfTheContract(t *testing.T) {
	for name, tt := range map[string]struct {
		value string
		want  *catalog.Instance
	}{
		"what docker-register wrote":   {`{ "port": 49155, "host": "10.132.181.182" }`, inst("10.132.181.182", 49155)},
		"port as a string":             {`{"host":"192.0.2.7","port":"8080"}`, inst("192.0.2.7", 8080)},
		"blanks around JSON":           {" \n{\"host\":\"192.0.2.7\",\"port\":80}\n", inst("192.0.2.7", 80)},
		"null counts as absent":        {`{"host":"h","port":1,"weight":null,"state":null,"tags":null,"meta":null,"x":null}`, inst("h", 1)},
		"nested other members ignored": {`{"host":"h","port":1,"x":{"a":[1]},"y":[]}`, inst("h", 1)},
		"bare":                         {"192.0.2.7:8080", inst("192.0.2.7", 8080)},
		"bare host name":               {"app-1.example.com:65535", inst("app-1.example.com", 65535)},
		"host name made canonical":     {`{"host":"App-1.Example.COM","port":80}`, inst("app-1.example.com", 80)},
		"bare IPv6":                    {"[2001:DB8::0:7]:80", inst("2001:db8::7", 80)},
		"IPv6 made canonical":          {`{"host":"2001:0db8:0:0::7","port":80}`, inst("2001:db8::7", 80)},
		"IPv4-mapped IPv6":             {`{"host":"::ffff:192.0.2.7","port":80}`, inst("192.0.2.7", 80)},
		"container id as host":         {`{"host":"0b1c22d3e4f5","port":80}`, inst("0b1c22d3e4f5", 80)},
		"everything": {
			`{"host":"h","port":1,"weight":0,"state":"drain","tags":["b","a"],"meta":{"http.host":"é.example","n":1.50,"b":true},"node":"n1","up":false}`,
			inst("h", 1, func(i *catalog.Instance) {
				i.Weight, i.State, i.Tags = 0, catalog.StateDrain, []string{"b", "a"}
				i.Meta = map[string]string{"http.host": "é.example", "n": "1.50", "b": "true", "node": "n1", "up": "false"}
			}),
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := catalog.Decode("a", []byte(tt.value))
			if err != nil {
				t.Fatalf("Decode(%s): %v", tt.value, err)
			}
			if diff := cmp.Diff(tt.want, got, ignoreID); diff != "" {
				t.Errorf("Decode(%s) (-want +got):\n%s", tt.value, diff)
			}
		})
	}
}

func TestDecodeRefusesWithAReasonThatHelps(t *testing.T) {
	long := strings.Repeat("x", catalog.MaxStringBytes+1)
	for name, tt := range map[string]struct{ value, reason string }{
		"empty":                    {"", "the value is empty; {"},
		"blank":                    {" \n", "the value is empty"},
		"no port":                  {"192.0.2.7", "neither a JSON object nor host:port"},
		"line break at the end":    {"192.0.2.7:80\n", "line breaks around it"},
		"injected line":            {"h\n  server evil:80", `holds '\n'`},
		"injected host":            {`{"host":"h\n  server evil 1.2.3.4:80","port":1}`, `holds '\n'`},
		"unix socket":              {`{"host":"unix@/var/run/docker.sock","port":1}`, `holds '@'`},
		"abstract socket":          {"abns@x:1", `holds '@'`},
		"environment":              {`{"host":"$HOME","port":1}`, `holds '$'`},
		"space":                    {`{"host":"a b","port":1}`, `holds ' '`},
		"zone":                     {`{"host":"fe80::1%eth0","port":1}`, "zone"},
		"any address":              {`{"host":"0.0.0.0","port":1}`, "means any address"},
		"any address, IPv6":        {"[::]:1", "means any address"},
		"any address, mapped":      {"[::ffff:0.0.0.0]:1", "means any address"},
		"five numbers":             {`{"host":"1.2.3.4.5","port":1}`, "ends in a number"},
		"hexadecimal address":      {`{"host":"0x7f000001","port":1}`, "ends in a number"},
		"octal address":            {`{"host":"010.0.0.1","port":1}`, "ends in a number"},
		"brackets in JSON":         {`{"host":"[::1]","port":1}`, "brackets"},
		"IPv6 without brackets":    {"2001:db8::7:80", "brackets belong around an IPv6"},
		"IPv4 in brackets":         {"[192.0.2.7]:80", "brackets belong around an IPv6"},
		"URL":                      {"http://h:80", `holds ':'`},
		"empty host":               {":80", "host is empty"},
		"trailing dot":             {"h.:80", "empty part"},
		"long label":               {strings.Repeat("a", 64) + ":80", "a part of 64 characters"},
		"long host name":           {strings.Repeat("a.", 127) + "b:80", "has 255 characters"},
		"hyphen":                   {"-h:80", "hyphen"},
		"host missing":             {`{"port":1}`, "host is missing"},
		"host null":                {`{"host":null,"port":1}`, "host is missing"},
		"host a number":            {`{"host":1,"port":1}`, "not a string"},
		"port missing":             {`{"host":"h"}`, "port is missing"},
		"port zero":                {`{"host":"h","port":0}`, `port "0" is not a whole number from 1 to 65535`},
		"port too big":             {`{"host":"h","port":65536}`, `port "65536"`},
		"port with fraction":       {`{"host":"h","port":80.0}`, `port "80.0"`},
		"port with exponent":       {`{"host":"h","port":8e1}`, `port "8e1"`},
		"port with sign":           {`{"host":"h","port":"+80"}`, `port "+80"`},
		"port with leading zero":   {"h:080", `port "080"`},
		"port true":                {`{"host":"h","port":true}`, `port "true"`},
		"port empty":               {"h:", `port ""`},
		"weight too big":           {`{"host":"h","port":1,"weight":257}`, `weight "257" is not a whole number from 0 to 256`},
		"weight with fraction":     {`{"host":"h","port":1,"weight":1.5}`, `weight "1.5"`},
		"weight a string":          {`{"host":"h","port":1,"weight":"1"}`, `weight`},
		"state unknown":            {`{"host":"h","port":1,"state":"up"}`, `none of ready, drain, maint`},
		"tags a string":            {`{"host":"h","port":1,"tags":"a"}`, "not an array"},
		"tag a number":             {`{"host":"h","port":1,"tags":[1]}`, `tag "1" is not a string`},
		"tag null":                 {`{"host":"h","port":1,"tags":[null]}`, `tag "null" is not a string`},
		"tag with control":         {`{"host":"h","port":1,"tags":["a\u0000b"]}`, "control character U+0000"},
		"tag with DEL":             {"{\"host\":\"h\",\"port\":1,\"tags\":[\"a\x7f\"]}", "control character U+007F"},
		"tag too long":             {`{"host":"h","port":1,"tags":["` + long + `"]}`, "4097 bytes; at most 4096"},
		"too many tags":            {`{"host":"h","port":1,"tags":[` + strings.Repeat(`"",`, 64) + `""]}`, "65 tags; at most 64"},
		"meta an array":            {`{"host":"h","port":1,"meta":[]}`, "meta"},
		"meta nested":              {`{"host":"h","port":1,"meta":{"a":{}}}`, "nested"},
		"meta name with control":   {`{"host":"h","port":1,"meta":{"a\n":1}}`, "control character U+000A"},
		"meta name empty":          {`{"host":"h","port":1,"meta":{"":1}}`, "empty name"},
		"meta with C1 control":     {`{"host":"h","port":1,"meta":{"a":"\u0085"}}`, "control character U+0085"},
		"meta value too long":      {`{"host":"h","port":1,"meta":{"a":"` + long + `"}}`, "4097 bytes"},
		"too many meta entries":    {`{"host":"h","port":1,"meta":{` + manyMembers(129) + `}}`, "129 meta entries; at most 128"},
		"too many members":         {`{"host":"h","port":1,` + manyMembers(129) + `}`, "129 meta entries; at most 128"},
		"member given twice":       {`{"host":"h","port":1,"host":"i"}`, `"host" is given twice`},
		"meta entry given twice":   {`{"host":"h","port":1,"meta":{"a":1,"a":1}}`, `"a" is given twice`},
		"in meta and beside":       {`{"host":"h","port":1,"meta":{"a":1},"a":1}`, "in meta and beside it"},
		"other member with tab":    {`{"host":"h","port":1,"node":"a\tb"}`, "control character U+0009"},
		"half a surrogate pair":    {`{"host":"h","port":1,"node":"\ud800"}`, "not valid UTF-8"},
		"not UTF-8":                {"{\"host\":\"h\",\"port\":1,\"node\":\"\xff\"}", "not valid UTF-8"},
		"not UTF-8, bare":          {"h\xff:80", "not valid UTF-8"},
		"trailing data":            {`{"host":"h","port":1} x`, "after top-level value"},
		"two objects":              {`{"host":"h","port":1}{}`, "after top-level value"},
		"cut off":                  {`{"host":"h","port":1`, "not valid JSON"},
		"array":                    {`["h:1"]`, "brackets"},
		"value too big":            {`{"host":"h","port":1,"x":[` + strings.Repeat(" ", 64<<10) + `]}`, "at most 65536"},
		"long offending piece cut": {`{"host":"` + strings.Repeat("é", 200) + `","port":1}`, `"...`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := catalog.Decode("a", []byte(tt.value))
			if err == nil {
				t.Fatalf("Decode(%.200q) = %+v, want an error", tt.value, got)
			}
			if !strings.Contains(err.Error(), tt.reason) {
				t.Errorf("Decode(%.200q) says %q, want it to say %q", tt.value, err, tt.reason)
			}
			if len(err.Error()) > 400 || strings.ContainsFunc(err.Error(), func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("the reason is long or not printable: %q", err)
			}
		})
	}
}

func manyMembers(n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(`"` + strings.Repeat("k", i+1) + `":1`)
	}
	return b.String()
}

func TestEncodeWritesEqualInstancesAsEqualBytes(t *testing.T) {
	for name, tt := range map[string]struct {
		inst  *catalog.Instance
		extra []catalog.Member
		want  string
	}{
		"the shortest": {inst("192.0.2.7", 80), nil, `{"host":"192.0.2.7","port":80}`},
		"state may be left out": {
			inst("h", 80, func(i *catalog.Instance) { i.State, i.Meta = "", nil }), nil, `{"host":"h","port":80}`,
		},
		"canonical host": {inst("::FFFF:192.0.2.7", 80), nil, `{"host":"192.0.2.7","port":80}`},
		"everything": {
			inst("h", 80, func(i *catalog.Instance) {
				i.Weight, i.State, i.Tags = 0, catalog.StateMaint, []string{"b", "a"}
				i.Meta = map[string]string{"z": "1", "a": `<">`}
			}),
			[]catalog.Member{{"node", "n1"}, {"n", 3}, {"b", true}},
			`{"host":"h","port":80,"weight":0,"state":"maint","tags":["b","a"],"meta":{"a":"<\">","z":"1"},"node":"n1","n":3,"b":true}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := catalog.Encode(tt.inst, tt.extra...)
			if err != nil || string(got) != tt.want {
				t.Errorf("Encode = %s, %v, want %s", got, err, tt.want)
			}
		})
	}
}

func TestEncodeRefusesWhatDecodeWouldRefuse(t *testing.T) {
	ok := func() *catalog.Instance { return inst("h", 80) }
	with := func(change func(*catalog.Instance)) *catalog.Instance { i := ok(); change(i); return i }
	for name, tt := range map[string]struct {
		inst  *catalog.Instance
		extra catalog.Member
	}{
		"host":            {with(func(i *catalog.Instance) { i.Host = "unix@/x" }), catalog.Member{Name: "x", Value: 1}},
		"port":            {with(func(i *catalog.Instance) { i.Port = 0 }), catalog.Member{Name: "x", Value: 1}},
		"weight":          {with(func(i *catalog.Instance) { i.Weight = -1 }), catalog.Member{Name: "x", Value: 1}},
		"state":           {with(func(i *catalog.Instance) { i.State = "up" }), catalog.Member{Name: "x", Value: 1}},
		"tag":             {with(func(i *catalog.Instance) { i.Tags = []string{"\n"} }), catalog.Member{Name: "x", Value: 1}},
		"damaged tag":     {with(func(i *catalog.Instance) { i.Tags = []string{"\xff"} }), catalog.Member{Name: "x", Value: 1}},
		"meta":            {with(func(i *catalog.Instance) { i.Meta["a"] = "\r" }), catalog.Member{Name: "x", Value: 1}},
		"member's name":   {ok(), catalog.Member{Name: "meta", Value: 1}},
		"member's type":   {ok(), catalog.Member{Name: "x", Value: 1.5}},
		"member's value":  {ok(), catalog.Member{Name: "x", Value: "\n"}},
		"member and meta": {with(func(i *catalog.Instance) { i.Meta["x"] = "1" }), catalog.Member{Name: "x", Value: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := catalog.Encode(tt.inst, tt.extra); err == nil {
				t.Errorf("Encode = %s, want an error", got)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{ "port": 49155, "host": "10.132.181.182" }`, `{"host":"h","port":"80","weight":0,"state":"drain","tags":["a"],"meta":{"k":"v"},"x":1}`,
		"192.0.2.7:80", "[2001:db8::7]:80", "h:80\n", `{"host":"::ffff:1.2.3.4","port":1e1}`, "\x00", `{"host":"h","port":1,"m":"\ud800"}`,
		`{"host":"h","port":1,"meta":{"a":{}}}`, `{"host":"h","host":"h"}`, `{"host":"fe80::1%1","port":1}`, `{"host":"0X1","port":1}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		got, err := catalog.Decode("a", value)
		if err != nil {
			if !utf8.ValidString(err.Error()) || strings.ContainsFunc(err.Error(), unicode.IsControl) {
				t.Fatalf("reason is not printable: %q", err)
			}
			return
		}
		for _, s := range texts(got) {
			if !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) || len(s) > catalog.MaxStringBytes {
				t.Fatalf("Decode(%q) let %q through", value, s)
			}
		}
		if strings.ContainsAny(got.Host, "@/$ %[]\"'\\#") || got.Host == "" {
			t.Fatalf("Decode(%q) let host %q through", value, got.Host)
		}
		if got.Port < 1 || got.Port > 65535 || got.Weight < 0 || got.Weight > 256 || got.Meta == nil ||
			len(got.Tags) > catalog.MaxTags || len(got.Meta) > catalog.MaxMetaEntries || got.ID < 1 || got.ID > 1<<31-1 {
			t.Fatalf("Decode(%q) = %+v, out of range", value, got)
		}
		again, err := catalog.Encode(got)
		if err != nil {
			if len(value) > catalog.MaxValueBytes/8 {
				return // escapes may make the text longer than a value may be
			}
			t.Fatalf("Encode of what Decode(%q) gave: %v", value, err)
		}
		back, err := catalog.Decode("a", again)
		if err != nil {
			t.Fatalf("Decode(%s): %v", again, err)
		}
		if diff := cmp.Diff(got, back); diff != "" {
			t.Fatalf("round trip of %q (-want +got):\n%s", value, diff)
		}
	})
}

func texts(i *catalog.Instance) []string {
	all := append([]string{i.Name, i.Host, string(i.State)}, i.Tags...)
	for k, v := range i.Meta {
		all = append(all, k, v)
	}
	return all
}
