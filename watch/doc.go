// Package watch turns two outside sources into settled values: the store into snapshots of the catalog, and a directory
// of templates into the texts of its files.
//
// A Store lists the watched key ranges at one revision and then follows the events after it. It promises that no change
// is lost: a watch that ends, falls silent or was compacted is resumed or listed again; a store that was wiped or
// restored is noticed, logged, and its content taken; and every minute a comparison, which costs the store next to nothing,
// finds what the watch has left out, and then everything is listed. No timer delays a change. While the store is away the
// last snapshot remains, and Status reports since when nothing was confirmed. Every attempt that fails is followed by a
// pause, which grows to three seconds.
//
// A Dir does the same for templates. File system events are hints only: it compares contents.
//
// Both Run methods keep the same contract about their channel. They send whole values, never differences, which the
// receiver must not change. The first value comes after the first successful read. A value equal to the one before is not
// sent. A receiver that is busy gets the newest value when it receives again, not those in between. Run never closes the
// channel, blocks until its context ends, and has then ended all its goroutines; it is called once.
//
// The package refuses to know what snapshots and templates are for.
//
//	store, err := watch.NewStore(watch.StoreOptions{Client: client, Prefix: "/services/"})
//	if err != nil {
//		return err
//	}
//	group.Go(func() error { return store.Run(ctx, snapshots) })
package watch
