// Package render turns a snapshot of services and the operator's templates into a set of configuration files.
//
// It promises that equal input gives equal bytes; that a value from the store can neither add, remove nor
// change a directive, because everything a template's action prints is escaped for the place where it stands
// in the file; that a value which fits nowhere costs its own server line or map line at most, and is reported;
// and that a faulty template ends in an *Error that names file, line and column, never in a panic, an endless
// output or a stack overflow.
//
// It refuses clock, randomness, network, disk and processes, and so do the functions it offers to templates.
//
//	t, err := render.New(templates.Shipped(), render.Options{Settings: map[string]string{"http.bind": ":8080"}})
//	result, err := t.Render(snapshot)
//	result.Files.Config() // haproxy.cfg
package render
