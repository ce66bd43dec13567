// Package flags is what both programs do with their command lines: kong's parser set up in one way, the flags of
// the log, and the refusal of environment variables that no flag knows.
//
// It promises that parsing never ends the process, so that a program runs within its own tests, and that a misspelt
// variable is an error instead of silence. It refuses to know any command.
//
//	parser := flags.New(&cli, "nuncio", description, "NUNCIO", stdout, stderr)
//	command, shown, err := flags.Parse(parser, args)
package flags
