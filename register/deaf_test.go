package register_test

import (
	"context"
	"testing"
	"time"

	"github.com/docker/docker/client"

	"nuncio/register"
)

// deafAPI is a real Docker whose events never arrive.
type deafAPI struct{ register.API }

func (d *deafAPI) Events(ctx context.Context, _ time.Time, _ func(register.Event)) error {
	<-ctx.Done()
	return ctx.Err()
}

func (d *deafAPI) source(t *testing.T, h *harness) register.Source {
	t.Helper()
	c, err := client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	d.API = register.NewAPI(c)
	o := h.docker
	o.API, o.Rules = d, h.rules
	return register.NewDocker(o)
}
