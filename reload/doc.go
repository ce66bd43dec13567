// Package reload owns the haproxy process and gets complete sets of configuration files into it.
//
// It promises that HAProxy never loads a file that "haproxy -c" has not passed in the same directory, byte for byte; that a
// crash between any two steps leaves the old set or the new one; that a set which is rejected, or whose reload fails, leaves
// the old one running; that a haproxy which exits is started again; that a worker whose state is not certain is reloaded with
// what was confirmed; and that Run ends by draining: requests under way may end within DrainTimeout, new connections are
// refused from the first moment, which is HAProxy's own behaviour. It promises that a haproxy outlives a Manager that dies or
// hands it over, and that the next Manager adopts it, if it can prove what runs.
//
// It does not know where the files come from, writes nothing outside its state directory, and never repeats a failed Apply.
//
// A change of servers, maps and lists alone goes to the running worker as commands, and to the disk in the background. Any
// other set becomes a generation: a directory that HAProxy's check passes before a symbolic link, swapped by rename, leads to
// it. HAProxy is started as "haproxy -W -db -S <run>/master.sock,level,admin -f current/nuncio.cfg -f current/haproxy.cfg";
// relative file names are relative to the generation. nuncio.cfg gives every configuration a Runtime API socket,
// <run>/runtime.sock. The word "daemon" in a configuration has no effect.
//
// After MaxCrashes exits in a row, each within a minute of a start, Run returns an *ExitError with haproxy's exit code.
//
//	m, err := reload.New(reload.Options{HAProxy: "/usr/sbin/haproxy", StateDir: "/var/lib/nuncio"})
//	go m.Run(ctx)
//	result, err := m.Apply(ctx, reload.Desired{Files: files, Revision: 42})
package reload
