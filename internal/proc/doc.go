// Package proc starts child processes. If this process is the reaper of its process tree (PID 1 of a container, or a
// child subreaper), it also reaps orphans.
//
// It promises that no exit status is lost: only its own Child waits for a process that was started here, and the Reaper
// collects every other zombie that has become a child of this process. It promises that every short command ends: when
// the context ends, it kills the command's whole process group, and it does not wait for a descendant that keeps the
// output open.
//
// A process that an earlier program started can be adopted.
//
// It does not guess: a program that calls Run on a Reaper must start every process through that Reaper, because the
// Reaper treats every zombie that it does not know as an orphan. A nil *Reaper starts processes and reaps nothing,
// which suits commands that run once and most tests.
//
//	reaper := proc.NewReaper(proc.Options{Logger: logger})
//	go reaper.Run(ctx)
//	out, err := reaper.Output(ctx, exec.Command("haproxy", "-v"), proc.DefaultLimit)
//	child, err := reaper.Start(exec.Command("haproxy", "-W", "-f", "haproxy.cfg"))
//	<-child.Done()
//	os.Exit(proc.ExitCode(child.State()))
package proc
