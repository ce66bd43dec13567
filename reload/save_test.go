package reload_test

import (
	"testing"
	"time"

	"nuncio/reload"
)

func TestSavingWaitsLongerWhereItTakesLonger(t *testing.T) {
	for _, tt := range []struct{ took, quiet, limit time.Duration }{
		{0, 100 * time.Millisecond, time.Second},
		{90 * time.Millisecond, 100 * time.Millisecond, time.Second},
		{200 * time.Millisecond, 200 * time.Millisecond, time.Second},
		{time.Second, time.Second, 4 * time.Second},
		{8 * time.Second, 8 * time.Second, 10 * time.Second},
		{time.Minute, 10 * time.Second, 10 * time.Second},
	} {
		if quiet, limit := reload.Patience(tt.took); quiet != tt.quiet || limit != tt.limit {
			t.Errorf("after %v: quiet %v, limit %v", tt.took, quiet, limit)
		}
	}
}
