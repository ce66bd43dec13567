package register

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"nuncio/internal/catalog"
)

// drainPoll is the pause between two checks of the marked records.
const drainPoll = time.Second

// ErrNoRecord is returned by Drain when nothing of this node matches.
var ErrNoRecord = errors.New("no record")

// DrainOptions configures Drain.
type DrainOptions struct {
	Client *clientv3.Client
	// Prefix of the records; empty means catalog.DefaultPrefix.
	Prefix string
	// Node is the host whose records may match, because names of containers repeat from host to host.
	Node string
	// Target is the name of a container, the beginning of its id (12 digits or more), or service/instance.
	Target string
	// Undo removes the mark again.
	Undo bool
	// Timeout is how long etcd may take to confirm, all attempts together; 0 means as long as the context lasts.
	Timeout time.Duration
	// Wait is how long Drain stays after etcd has confirmed the mark.
	Wait time.Duration

	onPass passHook
}

// Drain marks the records of one container "drain", in etcd itself, so that it works while no registrar runs. The
// registrar keeps the mark until the container stops or restarts.
//
// It returns the keys when etcd has confirmed the mark and Wait is over, or earlier when all records are gone. It does not
// know what the proxies do within that time; they usually follow etcd within milliseconds. It returns an error when a
// mark was removed within that time, and ErrNoRecord, wrapped, when nothing matches.
func Drain(ctx context.Context, o DrainOptions) ([]string, error) {
	o.Prefix = catalog.NormalizePrefix(cmp.Or(o.Prefix, catalog.DefaultPrefix))
	marked, err := o.confirm(ctx)
	if err != nil || o.Undo || o.Wait <= 0 {
		return marked, err
	}
	return marked, o.wait(ctx, marked)
}

// confirm returns the keys when etcd has confirmed the marks.
func (o DrainOptions) confirm(ctx context.Context) (marked []string, err error) {
	if o.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.Timeout)
		defer cancel()
	}
	const attempts = 10
	for range attempts {
		o.onPass.pass("drain")
		all, _, err := readRange(ctx, o.Client, o.Prefix, clientv3.GetPrefixRangeEnd(o.Prefix))
		if err != nil {
			return nil, err
		}
		if marked, err = o.mark(ctx, all); !errors.Is(err, errOutdated) {
			return marked, err
		}
	}
	return nil, fmt.Errorf("drain %s: its records changed at every one of %d attempts", o.Target, attempts)
}

func (o DrainOptions) matches(key string, own owner) bool {
	if own.Registrar == "" || own.Node != o.Node || o.Target == "" {
		return false
	}
	return own.Container == o.Target || strings.TrimPrefix(key, o.Prefix) == o.Target ||
		len(o.Target) >= 12 && strings.HasPrefix(own.ContainerID, o.Target)
}

// mark writes all marks in one transaction.
func (o DrainOptions) mark(ctx context.Context, all map[string]stored) (keys []string, err error) {
	var ifs []clientv3.Cmp
	var then []clientv3.Op
	for _, key := range slices.Sorted(maps.Keys(all)) {
		have := all[key]
		if !o.matches(key, have.owner) {
			continue
		}
		rec, err := readRecord(o.Prefix, key, have)
		if err != nil {
			return nil, err
		}
		value, err := rec.encode(have.owner.Node, have.owner.Registrar, !o.Undo)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
		if string(value) != string(have.value) {
			ifs = append(ifs, clientv3.Compare(clientv3.ModRevision(key), "=", have.mod))
			then = append(then, clientv3.OpPut(key, string(value), clientv3.WithIgnoreLease()))
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%w of node %q matches %q", ErrNoRecord, o.Node, o.Target)
	}
	resp, err := o.Client.Txn(ctx).If(ifs...).Then(then...).Commit()
	switch {
	case err != nil:
		return nil, fmt.Errorf("mark %s: %w", o.Target, err)
	case !resp.Succeeded:
		return nil, errOutdated
	}
	return keys, nil
}

// wait returns when Wait is over or the records are gone. Polling is enough: what proxies do with the mark is not reported back anyway.
func (o DrainOptions) wait(ctx context.Context, keys []string) error {
	over := time.NewTimer(o.Wait)
	defer over.Stop()
	poll := time.NewTicker(drainPoll)
	defer poll.Stop()
	for {
		o.onPass.pass("drain wait")
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-over.C:
			return nil
		case <-poll.C:
			if gone, err := o.check(ctx, keys); gone || err != nil {
				return err
			}
		}
	}
}

// check reports whether all the records are gone. Its error says that one has lost its mark. An etcd that does not answer
// changes nothing: it has confirmed the mark, and only the time is left to wait for.
func (o DrainOptions) check(ctx context.Context, keys []string) (gone bool, err error) {
	gone = true
	for _, key := range keys {
		resp, err := get(ctx, o.Client, key)
		if err != nil {
			return false, nil
		}
		for _, kv := range resp.Kvs {
			if readOwner(kv.Value).Operator != operatorDrain {
				return false, fmt.Errorf("record %s lost its mark while it drained: its container was restarted, or the record was written by hand", key)
			}
			gone = false
		}
	}
	return gone, nil
}

// readRecord parses a stored value. encode of the result gives the same bytes.
func readRecord(prefix, key string, have stored) (Record, error) {
	service, instance, err := catalog.ParseKey(prefix, key)
	if err != nil {
		return Record{}, err
	}
	inst, err := catalog.Decode(instance, have.value)
	if err != nil {
		return Record{}, fmt.Errorf("record %s: %w", key, err)
	}
	rec := Record{Service: service, Instance: *inst, Origin: have.owner.Origin}
	if have.owner.Operator == operatorDrain && inst.State == catalog.StateDrain {
		rec.Instance.State = catalog.StateReady
	}
	maps.DeleteFunc(rec.Instance.Meta, func(name, _ string) bool { return Reserved(name) })
	return rec, nil
}
