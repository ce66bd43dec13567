// Package etcd opens connections to the store: endpoints, TLS, credentials, and the timeouts that both programs share.
//
// It promises that an unusable combination of settings is an error that names the setting before anything is dialled,
// that certificates are read from disk again for every new connection, that Dial does not wait for the server, and that
// a connection is back within seconds of the server (gRPC's own back-off would take up to two minutes). It refuses to
// know what is stored.
//
//	client, err := etcd.Dial(etcd.Config{Endpoints: []string{"https://etcd1:2379"}, CAFile: "ca.pem"}, logger)
//	if err != nil {
//		return err // a setting; the server has not been asked yet
//	}
//	defer client.Close()
package etcd
