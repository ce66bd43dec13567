// Package haproxy contains facts about HAProxy: how it lexes a configuration and how a value is quoted in one, what a
// set of configuration files looks like, how to use its Runtime API and its master CLI, and how to find a binary's
// version.
//
// It promises to match the behaviour of HAProxy 2.6, 3.0 and later exactly, and to set a deadline for everything that
// crosses a socket or a process. It knows nothing about nuncio's records, templates and decisions.
package haproxy
