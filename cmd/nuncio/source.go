package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/user"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"nuncio/internal/catalog"
	"nuncio/internal/etcd"
	"nuncio/render"
	"nuncio/templates"
	"nuncio/watch"
)

// parsedTemplates parses the operator's templates, or the shipped ones. An error of exit code 2 is about --set.
func (f *templateFlags) parsedTemplates(s *streams, change ...func(*render.Options)) (*render.Templates, error) {
	tree := templates.Shipped()
	if f.dirOptions().Dir != "" {
		var err error
		if tree, err = f.tree(); err != nil {
			return nil, cannotStart("%w", err)
		}
	}
	options := f.renderOptions(s)
	for _, c := range change {
		c(&options)
	}
	parsed, err := render.New(tree, options)
	if err != nil {
		return nil, refused(err)
	}
	if err := parsed.CheckSettings(f.Set); err != nil {
		return nil, &exitError{exitUsage, fmt.Errorf("--set: %w", err)}
	}
	return parsed, nil
}

// settings returns --set, and for a nuncio that runs as root whom HAProxy's workers run as instead: the user, group and
// directory of Debian's package, where they exist and --set has none of them.
func (f *templateFlags) settings() map[string]string {
	set := maps.Clone(f.Set)
	if set == nil {
		set = map[string]string{}
	}
	for _, name := range []string{"user", "group", "chroot"} {
		if _, given := set[name]; given {
			return set
		}
	}
	if os.Geteuid() != 0 {
		return set
	}
	if _, err := user.Lookup("haproxy"); err == nil {
		set["user"] = "haproxy"
	}
	if _, err := user.LookupGroup("haproxy"); err == nil {
		set["group"] = "haproxy"
	}
	const empty = "/var/lib/haproxy"
	if info, err := os.Stat(empty); err == nil && info.IsDir() && set["user"] != "" {
		set["chroot"] = empty
	}
	return set
}

// snapshot reads everything below the prefixes from etcd once.
func (f *etcdFlags) snapshot(ctx context.Context) (*catalog.Snapshot, error) {
	config := f.config()
	if err := config.Validate(); err != nil {
		return nil, &exitError{exitUsage, err}
	}
	client, err := etcd.Dial(config, nil)
	if err != nil {
		return nil, cannotStart("%w", err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, oneShot)
	defer cancel()
	snap, err := watch.List(ctx, client, f.Prefix, f.Keys, f.Select)
	if err != nil {
		return nil, cannotStart("ask etcd at %s: %w", strings.Join(config.Endpoints, ", "), err)
	}
	return snap, nil
}

// readRecords makes a snapshot from a JSON or YAML file: a map from key to record, as in etcd. A key that does not
// begin with "/" is relative to the prefix. As from etcd, only what --prefix and --keys watch is read.
func (f *renderFlags) readRecords(s *streams) (*catalog.Snapshot, error) {
	file, stdin := f.Records, s.in
	var text []byte
	var err error
	if file == "-" {
		file = "standard input"
		text, err = io.ReadAll(stdin)
	} else {
		text, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, cannotStart("read records: %w", err)
	}
	asJSON, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return nil, refused(fmt.Errorf("records %s: %w", file, err))
	}
	var records map[string]json.RawMessage
	if err := json.Unmarshal(asJSON, &records); err != nil {
		return nil, refused(fmt.Errorf("records %s: want a map from key to record, such as {\"web/a\": {\"host\": \"192.0.2.7\", \"port\": 80}}: %w", file, err))
	}
	watched := catalog.NewRanges(f.Prefix, f.Keys)
	builder := catalog.NewBuilder(catalog.BuilderOptions{Prefix: f.Prefix, NoRecords: f.Prefix == "", Watched: watched, Select: f.Select})
	var ignored []string
	for _, key := range slices.Sorted(maps.Keys(records)) {
		value := []byte(records[key])
		// A record in etcd may be a bare host:port; in JSON and YAML that is a string.
		var bare string
		if json.Unmarshal(value, &bare) == nil {
			value = []byte(bare)
		}
		if !strings.HasPrefix(key, "/") {
			key = catalog.NormalizePrefix(f.Prefix) + key
		}
		if !watched.Hold(key) {
			ignored = append(ignored, key)
			continue
		}
		builder.Put(key, value)
	}
	if len(ignored) > 0 {
		what := "--prefix or --keys"
		if f.Confd != "" {
			what = "the keys of confd's resources"
		}
		fmt.Fprintf(s.err, "nuncio: %s of %s: not below %s (%s), so ignored, as they would be in etcd: %s\n", plural(len(ignored), "key", "keys"), file, what,
			strings.Join(watched, " "), abbreviate(ignored))
	}
	return builder.Snapshot(0), nil
}

// abbreviate lists the first few names.
func abbreviate(names []string) string {
	const most = 5
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], " "), len(names)-most)
	}
	return strings.Join(names, " ")
}
