package generation

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"nuncio/internal/haproxy"
)

// WriteFiles writes files and the content of OwnConfigFile to a directory, and syncs them and their names. Like all files of
// nuncio they are for its user alone.
func WriteFiles(dir string, files haproxy.Files, own []byte) error {
	for _, name := range files.Names() {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		content, _ := files.Get(name)
		if err := writeSynced(path, content); err != nil {
			return err
		}
	}
	if err := writeSynced(filepath.Join(dir, OwnConfigFile), own); err != nil {
		return err
	}
	return syncDirs(dir)
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
