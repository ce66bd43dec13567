package reload_test

import (
	"errors"
	"testing"

	"nuncio/internal/testkit"
	"nuncio/reload"
)

func TestApplyAnswersWithTheOutcome(t *testing.T) {
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		addr := testkit.FreeAddr(t)
		r := start(t, h, reload.Options{})
		apply := func(d reload.Desired) (reload.Result, error) { return r.Apply(t.Context(), d) }
		a, err := apply(reload.Desired{Files: config(addr, "one"), Revision: 1, TemplateSet: 7, NoReload: true})
		if err != nil || a.Outcome != reload.Started || a.Revision != 1 || a.Generation != 1 || a.TemplateSet != 7 || a.Digest == "" {
			t.Fatalf("a start: %+v, %v", a, err)
		}
		if a, err = apply(reload.Desired{Files: config(addr, "one"), Revision: 2}); err != nil || a.Outcome != reload.Unchanged {
			t.Errorf("the same files: %+v, %v", a, err)
		}
		if _, err = apply(reload.Desired{Files: config(addr, "two"), NoReload: true}); !errors.Is(err, reload.ErrReloadNeeded) {
			t.Errorf("a change that needs a reload, with NoReload: %v", err)
		}
		r.serves(addr, "one")
		rejected := (*reload.CheckError)(nil)
		if a, err = apply(reload.Desired{Files: config(addr, "two", "  frobnicate"), Revision: 3}); !errors.As(err, &rejected) || a.Outcome != reload.Rejected {
			t.Errorf("files with a mistake: %+v, %v", a, err)
		}
		if a, err = apply(reload.Desired{Files: config(addr, "two"), Revision: 4}); err != nil || a.Outcome != reload.Reloaded {
			t.Errorf("other files: %+v, %v", a, err)
		}
		r.serves(addr, "two")
		if err := r.end(); err != nil {
			t.Error(err)
		}
		if _, err = apply(reload.Desired{Files: config(addr, "one")}); !errors.Is(err, reload.ErrStopped) {
			t.Errorf("after the end: %v", err)
		}
	})
}
