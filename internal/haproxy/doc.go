// Package haproxy holds what HAProxy itself is, as facts: how a configuration is lexed and how a value is
// quoted in it, what a set of configuration files looks like, how its Runtime API and its master CLI are
// spoken to, and which version a binary has.
//
// It promises to follow the program's behaviour exactly, for the versions 2.6, 3.0 and later, and to put a
// deadline on everything that crosses a socket or a process. It refuses to know about nuncio's records,
// templates and decisions: those belong to the rooms above.
package haproxy
