package status_test

import (
	"net/http"
	"strings"
	"testing"

	"nuncio/status"
)

// TestNothingShowsTheSecretOfAQuarantinedRecord has records that break the contract in all the ways that could show a
// value. The reason must still be shown.
func TestNothingShowsTheSecretOfAQuarantinedRecord(t *testing.T) {
	for _, c := range []struct{ name, record, reason string }{
		{"a plain mistake", `{"host":"192.0.2.7","port":"hunter2","meta":{"db.password":"hunter2","colour":"blue"}}`, "port is not a whole number"},
		{"a host", `{"host":"unix@/run/hunter2","port":1}`, "host "},
		{"not JSON", `{"host":"192.0.2.7","meta":{"db.password":"hunter2"`, "the value is not valid JSON"},
		{"a bare value", "hunter2", "the value is neither a JSON object nor host:port"},
		{"a bare value with blanks", " hunter2 ", "the value has blanks"},
		{"user and password", "admin:hunter2", "port is not a whole number"},
		{"an address with a password", `{"host":"http://admin:hunter2@192.0.2.7","port":1}`, "host "},
		{"meta that is a text", `{"host":"192.0.2.7","port":1,"meta":"db.password=hunter2"}`, "meta is not an object"},
		{"meta that is a list", `{"host":"192.0.2.7","port":1,"meta":["db.password: hunter2"]}`, "meta is not an object"},
		{"a secret with a line break", `{"host":"192.0.2.7","port":1,"meta":{"api-key":"hunter2\n"}}`, `meta value of "api-key" holds the control character`},
		{"a port that is an object", `{"host":"192.0.2.7","port":{"password":"hunter2"}}`, "port is not a whole number"},
		{"nested below a secret name", `{"host":"192.0.2.7","port":1,"meta":{"secrets":{"a":"hunter2"}}}`, `meta entry "secrets" is nested`},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newEnv(t, nil)
			w.put("web/bad", c.record)
			all := get[status.Overview](t, w.URL+"/v1/status").Quarantined
			if len(all) != 1 || !strings.HasPrefix(all[0].Reason, c.reason) {
				t.Errorf("%s: got %+v, want a reason that begins %q", c.record, all, c.reason)
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
	w := newEnv(t, nil)
	w.put("web/a", `{"host":"192.0.2.7","port":1,"meta":{"http.token":"hunter2","http.host":"a.example.com"}}`,
		"web/b", `{"host":"192.0.2.8","port":1,"meta":{"http.token":"hunter3","http.host":"b.example.com"}}`)
	_, _, body := fetch(t, w.URL+"/v1/status")
	if strings.Contains(body, "hunter") || !strings.Contains(body, "http.token") || !strings.Contains(body, "b.example.com") {
		t.Errorf("instances that disagree on a secret: want its name, not its values, and the other setting's, in\n%s", body)
	}
}
