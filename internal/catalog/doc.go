// Package catalog defines what nuncio knows about services, and the contract between its two programs: the key and the
// value of a record in etcd.
//
// It promises that every Snapshot is immutable, sorted, and free of bytes with a meaning in HAProxy's configuration
// language; that a record which breaks the contract is in Snapshot.Quarantined with its reason and costs no other record;
// that equal content encodes to equal bytes; and that an unchanged Service keeps its pointer from one Snapshot to the
// next, so that its readers may cache by identity.
//
// It refuses to know where records come from or what is done with them: it imports the standard library only, does no I/O
// and has no clock.
//
//	b := catalog.NewBuilder(catalog.BuilderOptions{})
//	b.Put("/services/web/a", []byte(`{"host":"192.0.2.7","port":8080}`))
//	snap := b.Snapshot(42)
//	snap.Service("web").Instances[0].Addr() // "192.0.2.7:8080"
package catalog
