package reload

import (
	"context"
	"fmt"
	"os"
	"slices"

	"nuncio/internal/haproxy"
	"nuncio/reload/internal/generation"
	"nuncio/reload/internal/plan"
	"nuncio/reload/internal/process"
)

// Check asks the haproxy program for its verdict on files, in a scratch directory that is removed again. The error is a
// *CheckError when the files are rejected, and a different one when there was no verdict.
func Check(ctx context.Context, program string, files haproxy.Files) error {
	env := process.Environment(os.Environ())
	if err := vet(files, env); err != nil {
		return err
	}
	program, err := absProgram(program)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "nuncio-check-")
	if err != nil {
		return fmt.Errorf("check: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // a leftover in the scratch space does no harm
	if err := process.WriteStateFile(dir, haproxy.EmptyStateFile); err != nil {
		return fmt.Errorf("check: %w", err)
	}
	if err := generation.WriteFiles(dir, "", files, process.OwnConfig(dir)); err != nil {
		return fmt.Errorf("check: %w", err)
	}
	return process.Checker{Program: program, Env: env}.Check(ctx, dir, configs()...)
}

// vet returns a *CheckError for files that must not reach HAProxy whatever "haproxy -c" says about them.
func vet(files haproxy.Files, env []string) error {
	return process.Vet(files, env, generation.OwnConfigFile, generation.ManifestFile)
}

// configs are the files of a generation that HAProxy loads, in order.
func configs() []string { return []string{generation.OwnConfigFile, haproxy.ConfigFile} }

// checkGeneration runs "haproxy -c" on a generation that has been written.
func (m *Manager) checkGeneration(ctx context.Context, number int64, niceness int) error {
	ctx, cancel := context.WithTimeout(ctx, m.opts.CheckTimeout)
	defer cancel()
	c := process.Checker{Program: m.opts.HAProxy, Env: m.opts.env, Procs: m.opts.Procs, Niceness: niceness}
	return c.Check(ctx, generation.Path(m.opts.StateDir, number), configs()...)
}

// Fixed is a reason for which backends cannot come or go without a reload, although the program could do that.
type Fixed struct {
	Reason   string
	Backends []string
}

// FixedBackends returns the backends of a set of files that need a reload to come or go, by reason. It returns none for a HAProxy
// before 3.4, which takes no new backend without one.
func FixedBackends(ctx context.Context, program string, files haproxy.Files) ([]Fixed, error) {
	version, err := haproxy.ReadVersion(ctx, program, nil)
	if err != nil || !version.AtLeast(3, 4) {
		return nil, err
	}
	model, err := plan.NewModel(files.Text(haproxy.ConfigFile))
	if err != nil {
		return nil, err
	}
	var fixed []Fixed
	plan.New(version).FixedBackends(model, func(name, reason string) {
		i := slices.IndexFunc(fixed, func(f Fixed) bool { return f.Reason == reason })
		if i < 0 {
			i, fixed = len(fixed), append(fixed, Fixed{Reason: reason})
		}
		fixed[i].Backends = append(fixed[i].Backends, name)
	})
	return fixed, nil
}
