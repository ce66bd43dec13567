// Package control lets operators on the same machine ask a running nuncio and tell it what to do, over HTTP on a unix
// socket. What it offers is named by whoever makes the Server: questions by an http.Handler, actions by name.
//
// It promises that only the user that nuncio runs as, and root, can reach the socket (mode 0600 from its first moment),
// that a socket which a crash left behind is replaced, and that one which another process answers on is not. It refuses
// to listen on a network.
//
//	s := control.New(control.Options{Path: path, Handler: statusHandler, Actions: map[string]control.Action{"resume": resume}})
//	go s.Run(ctx)
//	answer, err := control.NewClient(path).Do(ctx, "resume", nil)
package control
