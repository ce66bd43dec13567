// Package watch turns what changes outside into settled values: the store into snapshots of the catalog, and a
// directory of templates into the text of its files.
//
// A Store lists the watched key ranges at one revision, then follows the events after it. It promises that nothing
// is dropped: a watch that ends, falls silent or was compacted is resumed or listed again; a store that was
// wiped or restored is noticed, said in the log, and taken as the new truth; and every minute a full listing
// corrects what anything may have missed. The first change after a quiet spell is delivered at once, a
// burst as one snapshot with a bounded delay, equal content not at all. While the store is away the last
// snapshot stands and Status says since when nothing was confirmed.
//
// A Dir does the same for templates: file system events are hints, what counts is the content.
//
// The package refuses to know what snapshots and templates are for.
//
//	store, err := watch.NewStore(watch.StoreOptions{Client: client, Prefix: "/services/"})
//	if err != nil {
//		return err
//	}
//	group.Go(func() error { return store.Run(ctx, snapshots) })
package watch
