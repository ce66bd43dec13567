// Package cli contains what both programs share at their edge: the parsing of command lines and variables, HTTP
// serving, and the guard of an admin listener against requests for foreign host names.
//
// It promises that parsing never ends the process, so that a program can run in its own tests; that a misspelt variable
// is an error; and that a foreign web page cannot read an admin listener on loopback. It knows no command.
//
//	parser := cli.New(&grammar, "nuncio", description, "NUNCIO", stdout, stderr)
//	command, shown, err := cli.Parse(parser, args)
package cli
