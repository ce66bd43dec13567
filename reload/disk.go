package reload

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"nuncio/internal/haproxy"
)

// ownConfig is the configuration that is loaded before the operator's.
func ownConfig(sockets string) []byte {
	quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`).Replace(filepath.Join(sockets, runtimeSocket))
	return fmt.Appendf(nil, `# Written by nuncio and loaded before haproxy.cfg; changes made here are lost.
# File names in haproxy.cfg that are not absolute are looked up beside it, in the same generation.
# nuncio asks this socket which worker serves; it is there whatever the templates say.
global
    default-path config
    stats socket "%s" mode 600 level admin
`, quoted)
}

func writeFiles(dir string, files haproxy.Files) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
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
	return nil
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
