// Package proc starts child processes and, where this process is the reaper of its process tree (PID 1 of a
// container, or a child subreaper), waits for the orphans that nobody else waits for.
//
// It promises that no exit status is lost: a process that was started here is waited for by its own Child
// only, and every other zombie that has become a child of this process is collected. It promises an end to
// every short command: when the context ends, the command's whole process group is killed, and a descendant
// that keeps the output open is not waited for.
//
// It refuses to guess: in a program that calls Run on a Reaper, every process has to be started through that
// Reaper, since a zombie that it does not know is an orphan to it. A nil *Reaper starts processes too and
// reaps nothing, which is right for a command that runs once and for most tests.
//
//	reaper := proc.NewReaper(proc.Options{Logger: logger})
//	go reaper.Run(ctx)
//	out, err := reaper.Output(ctx, exec.Command("haproxy", "-v"), proc.DefaultLimit)
//	child, err := reaper.Start(exec.Command("haproxy", "-W", "-f", "haproxy.cfg"))
//	<-child.Done()
//	os.Exit(proc.ExitCode(child.State()))
package proc
