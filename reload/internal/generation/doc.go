// Package generation keeps complete sets of configuration files on disk.
//
// A generation is a directory below the state directory. It counts once it is sealed, which its owner does after "haproxy -c"
// has passed it in that place; a symbolic link, swapped by rename, leads to the current one. Every file and every name is
// synced before the link leads to it, so a crash between any two steps leaves the old set or the new one. A generation is
// never changed afterwards.
//
//	store, err := generation.Open(stateDir, ownConfig)
//	number, err := store.Write(files)
//	// check the files in generation.Path(stateDir, number)
//	err = store.Seal(generation.Generation{Number: number, Digest: files.Digest()})
//	err = store.Activate(number)
package generation
