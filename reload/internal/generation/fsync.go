package generation

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"nuncio/internal/haproxy"
)

// WriteFiles writes files and the content of OwnConfigFile to a directory, and syncs them and their names. Like all files of
// nuncio they are for its user alone. A file that an earlier directory has with the same content becomes a link to that one:
// there can be a thousand certificates, and to sync each of them for every generation takes seconds. earlier may be empty.
func WriteFiles(dir, earlier string, files haproxy.Files, own []byte) error {
	for _, name := range files.Names() {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		content, _ := files.Get(name)
		if earlier != "" && name != haproxy.ConfigFile && linkSame(filepath.Join(earlier, filepath.FromSlash(name)), path, content) {
			continue
		}
		if err := writeSynced(path, content); err != nil {
			return err
		}
	}
	if err := writeSynced(filepath.Join(dir, OwnConfigFile), own); err != nil {
		return err
	}
	return syncDirs(dir)
}

// linkSame links a file that has this content, and reports whether it did. The file is read: one that was changed from outside
// must not spread.
func linkSame(earlier, path string, content []byte) bool {
	info, err := os.Lstat(earlier)
	if err != nil || !info.Mode().IsRegular() || info.Mode().Perm() != 0o600 || info.Size() != int64(len(content)) {
		return false
	}
	have, err := os.ReadFile(earlier)
	return err == nil && bytes.Equal(have, content) && os.Link(earlier, path) == nil
}

// writeSynced writes a file that must not exist yet.
func writeSynced(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Sync(), f.Close())
}

// syncDirs syncs a directory and those below it: a file's name is safe only once its directory is.
func syncDirs(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return syncDir(path)
	})
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
