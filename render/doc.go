// Package render turns a snapshot of services and the operator's templates into a set of configuration files.
//
// It promises: equal input gives equal bytes. A value from the store cannot add, remove or change a directive, because the
// output of every action is escaped for its place in the file. A value that its place does not allow costs at most its own
// server line or map line, and is reported. A faulty template ends in an *Error with file, line and column, never in a
// panic, endless output or a stack overflow.
//
// It uses no clock, randomness, network, disk or processes, and neither do the functions it offers to templates.
//
//	t, err := render.New(templates.Shipped(), render.Options{Settings: map[string]string{"http.bind": ":8080"}})
//	result, err := t.Render(snapshot)
//	result.Files.Config() // haproxy.cfg
package render
