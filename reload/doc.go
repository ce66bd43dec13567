// Package reload owns the haproxy process and gets complete sets of configuration files into it.
//
// A set becomes a generation: a directory of its own below the state directory, checked by "haproxy -c" in
// that place. A symbolic link named current is moved to it by rename, HAProxy reloads, and only when HAProxy
// itself has confirmed the new worker is the generation applied. The last generations are kept.
//
// It promises that HAProxy never loads a file that "haproxy -c" has not passed in the same directory, byte
// for byte; that a crash between any two steps leaves the old set or the new one; that a set which is
// refused, or whose reload does not work, leaves the old one running and is tried again, less and less often, until it
// works or a newer one comes; that a haproxy process which dies comes back; and that it stops by draining:
// requests under way may end within DrainTimeout, new connections are refused from the first moment, which is
// HAProxy's own behaviour.
//
// It refuses to know where the files come from. It writes nothing outside its state directory.
//
// HAProxy is started as "haproxy -W -db -S <run>/master.sock,level,admin -f current/nuncio.cfg -f
// current/haproxy.cfg" with the generation as the place that relative file names are relative to. nuncio.cfg
// is ours: it gives every configuration a Runtime API socket, <run>/runtime.sock. The word "daemon" in a
// configuration has no effect.
//
// Steps of an apply: refuse what is dangerous without asking HAProxy, write, haproxy -c, try new bind
// addresses, swap the link, reload, confirm, prune. A failure at any of them puts the link back.
//
// When the haproxy process dies it is started again at once, then with growing pauses. After MaxCrashes deaths in a
// row, each within a minute of a good start, Run gives up with an *ExitError that carries haproxy's exit code.
//
//	m, err := reload.New(reload.Options{HAProxy: "/usr/sbin/haproxy", StateDir: "/var/lib/nuncio"})
//	go m.Run(ctx)
//	err = m.Submit(ctx, reload.Desired{Files: files, Revision: 42})
//	m.Status().State // "running" once HAProxy has confirmed it
package reload
