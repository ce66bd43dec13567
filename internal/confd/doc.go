// Package confd reads confd's own configuration: the template resources of conf.d/*.toml and confd.toml.
//
// It decides which resources are HAProxy's and which file each of them makes, and it knows where confd looks for keys. It reads
// texts, opens no file and renders nothing. An error is always an *Error with the file and, where there is one, the line.
// Facts about confd are those of confd 0.16 and of its newest commit, 919444eb.
//
//	layout, err := confd.Parse(tree, confd.Options{}) // tree: conf.d/haproxy.toml, templates/haproxy.tmpl ...
//	layout.Resources[0].Src                           // templates/haproxy.tmpl
//	layout.Keys()                                     // what to watch
package confd
