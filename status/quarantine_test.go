package status_test

import (
	"net/http"
	"strings"
	"testing"

	"nuncio/status"
)

// TestNothingShowsTheSecretOfARecordThatIsLeftOut has records that break the contract in all the ways that could show a
// value. What is wrong with them must still be told.
func TestNothingShowsTheSecretOfARecordThatIsLeftOut(t *testing.T) {
	for _, c := range []struct{ name, record, reason, value string }{
		{
			"a plain mistake", `{"host":"192.0.2.7","port":"none","meta":{"db.password":"hunter2","colour":"blue"}}`,
			`port "none" is not a whole number`, `{"host":"192.0.2.7","meta":{"colour":"blue","db.password":"[hidden]"},"port":"none"}`,
		},
		{"a host", `{"host":"unix@/run/x","port":1}`, `host "unix@/run/x" `, `{"host":"unix@/run/x","port":1}`},
		{"a host without a secret", `{"host":"a b","port":1}`, `host "a b" `, `"host":"a b"`},
		{"not JSON", `{"host":"192.0.2.7","meta":{"db.password":"hunter2"`, "the value [hidden] is not valid JSON", "[hidden; nuncio services shows it]"},
		{"a bare value", "hunter2", "the value [hidden] is neither a JSON object nor host:port", "[hidden; nuncio services shows it]"},
		{"a bare value with blanks", " hunter2 ", "the value [hidden] has blanks", "[hidden; nuncio services shows it]"},
		{"user and password", "admin:hunter2", "port [hidden] is not a whole number", "[hidden; nuncio services shows it]"},
		{"an address with a password", `{"host":"http://admin:hunter2@192.0.2.7","port":1}`, "host [hidden] ", `"host":"http://[hidden]@192.0.2.7"`},
		{"meta that is a text", `{"host":"192.0.2.7","port":1,"meta":"db.password=hunter2"}`, "meta [hidden] is not an object", `"meta":"db.password=[hidden]"`},
		{"meta that is a list", `{"host":"192.0.2.7","port":1,"meta":["db.password: hunter2"]}`, "meta [hidden] is not an object", `["db.password: [hidden]"]`},
		{"a secret with a line break", `{"host":"192.0.2.7","port":1,"meta":{"api-key":"hunter2\n"}}`, `meta value of "api-key" [hidden] holds the control character`, `"api-key":"[hidden]"`},
		{"another value with a line break", `{"host":"192.0.2.7","port":1,"meta":{"note":"x\n"}}`, `meta value of "note" "x\n" holds the control character`, `"note":"x\n"`},
		{"a port that is an object", `{"host":"192.0.2.7","port":{"password":"hunter2"}}`, "port [hidden] is not a whole number", `"port":{"password":"[hidden]"}`},
		{"nested below a secret name", `{"host":"192.0.2.7","port":1,"meta":{"secrets":{"a":"hunter2"}}}`, `meta entry "secrets" is nested`, `"secrets":"[hidden]"`},
		{
			"too long to be read again", `{"host":"192.0.2.7","port":"none","meta":{"password":"hunter2","x":"` + strings.Repeat("x", 300) + `"}}`,
			`port "none" is not a whole number`, "[hidden; nuncio services shows it]",
		},
		{"user and password of a host", `{"host":"admin:hunter2@192.0.2.7","port":1}`, "host [hidden] ", `"host":"[hidden]@192.0.2.7"`},
		{"a large number", `{"host":"192.0.2.7","port":"none","n":12345678901234567890}`, `port "none"`, `"n":12345678901234567890`},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.put("web/bad", c.record)
			all := get[status.Overview](t, w.URL+"/v1/status").Quarantined
			if len(all) != 1 || !strings.HasPrefix(all[0].Reason, c.reason) || !strings.Contains(all[0].Value, c.value) {
				t.Errorf("%s: got %+v, want a reason that begins %q and the value %q", c.record, all, c.reason, c.value)
			}
			for _, path := range []string{"/", "/v1/status", "/v1/services", "/readyz"} {
				if code, _, body := fetch(t, w.URL+path); strings.Contains(body, "hunter2") || code != http.StatusOK {
					t.Errorf("GET %s: %d, and no password is wanted in\n%s", path, code, body)
				}
			}
		})
	}
}

func TestNoConflictShowsASecret(t *testing.T) {
	w := newWorld(t, nil)
	w.put("web/a", `{"host":"192.0.2.7","port":1,"meta":{"http.token":"hunter2","http.host":"a.example.com"}}`,
		"web/b", `{"host":"192.0.2.8","port":1,"meta":{"http.token":"hunter3","http.host":"b.example.com"}}`)
	_, _, body := fetch(t, w.URL+"/v1/status")
	if strings.Contains(body, "hunter") || !strings.Contains(body, "http.token") || !strings.Contains(body, "b.example.com") {
		t.Errorf("instances that disagree on a secret: want its name, not its values, and the other setting's, in\n%s", body)
	}
}
