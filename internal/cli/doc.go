// Package cli holds what both programs do at their edge: command lines and variables read in one way, and the
// guard of an admin listener against requests for foreign host names.
//
// It promises that parsing never ends the process, so that a program can run within its own tests; that a misspelt
// variable is an error instead of silence; and that a foreign web page cannot read an admin listener on loopback. It
// refuses to know any command.
//
//	parser := cli.New(&grammar, "nuncio", description, "NUNCIO", stdout, stderr)
//	command, shown, err := cli.Parse(parser, args)
package cli
