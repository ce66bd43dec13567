package status

import (
	"time"

	"nuncio/reconcile"
)

// Certs is the document of /v1/certs.
type Certs struct {
	Document     int        `json:"document"`
	Certificates []CertView `json:"certificates"` // sorted by file
}

// CertView is a certificate, or a file of authorities or revocation lists, that HAProxy uses.
type CertView struct {
	reconcile.Certificate

	// DaysLeft is how many whole days it is still valid; negative if it has expired.
	DaysLeft int `json:"days_left"`
}

// soonDays is below how many days an expiry is shown as something to do.
const soonDays = 14

// Expires reports whether there is an expiry to show: revocation lists have none here.
func (c CertView) Expires() bool { return !c.NotAfter.IsZero() }

// Word is how the page and the CLI colour the line: "bad", "warn" or "good".
func (c CertView) Word() string {
	switch {
	case c.Expires() && c.DaysLeft < 0, c.State == "broken", c.State == "left out":
		return "bad"
	case c.Expires() && c.DaysLeft < soonDays, !c.Current():
		return "warn"
	default:
		return "good"
	}
}

// Bad reports whether someone has to do something now: it has expired, or its newest content is not in use.
func (c CertView) Bad() bool { return !c.Current() || c.Expires() && c.DaysLeft < 0 }

func (m *moment) certs() Certs {
	doc := Certs{Document: 1, Certificates: []CertView{}}
	for _, c := range m.reconciler.Certificates {
		v := CertView{Certificate: c}
		if c.Names == nil {
			v.Names = []string{}
		}
		if v.Expires() {
			left := c.NotAfter.Sub(m.time)
			if v.DaysLeft = int(left / (24 * time.Hour)); left < 0 {
				v.DaysLeft--
			}
		}
		doc.Certificates = append(doc.Certificates, v)
	}
	return doc
}
