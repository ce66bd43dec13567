package register

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// write commits the changes in order, in as few transactions as etcd allows.
func (k *keeper) write(ctx context.Context, all []Change) error {
	for len(all) > 0 {
		n := min(len(all), opsPerTxn)
		resp, err := k.commit(ctx, all[:n])
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, rpctypes.ErrLeaseNotFound):
			k.metrics.txns.WithLabelValues("failed").Inc()
			k.log.Warn("lease is gone, records get a new one", "lease", fmt.Sprintf("%x", k.leaseID))
			k.drop()
			k.look = time.Now()
			return nil
		case err != nil:
			k.metrics.txns.WithLabelValues("failed").Inc()
			k.trouble(fmt.Errorf("write records: %w", err))
			return nil
		case !resp.Succeeded:
			k.metrics.txns.WithLabelValues("refused").Inc()
			return k.refused(ctx, resp)
		}
		k.metrics.txns.WithLabelValues("committed").Inc()
		k.fine()
		k.written = time.Now()
		k.committed, k.echo = resp.Header.Revision, k.written
		k.look = k.echo.Add(echoTimeout / 4)
		for _, ch := range all[:n] {
			k.metrics.writes.WithLabelValues(ch.Why).Inc()
			k.say(ch, resp.Header.Revision)
		}
		all = all[n:]
	}
	return nil
}

func (k *keeper) say(ch Change, revision int64) {
	if ch.Value == "" && ch.Reason != "" {
		k.log.Info("record written", "key", ch.Key, "cause", ch.Why, "reason", ch.Reason, "revision", revision)
		return
	}
	k.log.Info("record written", "key", ch.Key, "cause", ch.Why, "value", ch.Value, "revision", revision)
}

// commit is one transaction: it happens only if every key is as the mirror has it, and the claim is ours.
func (k *keeper) commit(ctx context.Context, changes []Change) (*clientv3.TxnResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	var ifs []clientv3.Cmp
	var then, otherwise []clientv3.Op
	if k.claimKey != "" {
		ifs = append(ifs, clientv3.Compare(clientv3.ModRevision(k.claimKey), "=", k.claimRev))
		otherwise = append(otherwise, clientv3.OpGet(k.claimKey))
	}
	for _, ch := range changes {
		ifs = append(ifs, clientv3.Compare(clientv3.ModRevision(ch.Key), "=", ch.mod))
		if ch.Value == "" {
			then = append(then, clientv3.OpDelete(ch.Key))
		} else {
			then = append(then, clientv3.OpPut(ch.Key, ch.Value, clientv3.WithLease(clientv3.LeaseID(k.leaseID))))
		}
	}
	return k.client.Txn(ctx).If(ifs...).Then(then...).Else(otherwise...).Commit()
}

// refused handles a transaction whose conditions did not hold: the claim has changed, or a key.
func (k *keeper) refused(ctx context.Context, resp *clientv3.TxnResponse) error {
	if k.claimKey != "" && claimRevision(resp.Responses) != k.claimRev {
		// Gone with its lease, or taken by another registrar: taking it again tells which.
		k.drop()
		if err := k.own(ctx); err != nil {
			return err
		}
	}
	k.listed = false // the mirror was wrong: nothing is tried before the list that is asked for here
	k.watcher.reread()
	return nil
}

func claimRevision(responses []*etcdserverpb.ResponseOp) int64 {
	if len(responses) == 0 {
		return 0
	}
	if kvs := responses[0].GetResponseRange().GetKvs(); len(kvs) > 0 {
		return kvs[0].ModRevision
	}
	return 0
}

// explain logs each conflict once.
func (k *keeper) explain(conflicts []Skipped) {
	k.metrics.conflicts.Set(float64(len(conflicts)))
	now := map[string]string{}
	for _, c := range conflicts {
		now[c.Container] += c.Reason
	}
	for _, c := range conflicts {
		if k.told[c.Container] != now[c.Container] {
			k.log.Warn("record not written", "container", c.Container, "reason", c.Reason)
		}
	}
	k.told = now
}

// leave ends this registrar's part in the store. Records that stay live on until the lease ends; without the
// claim, a successor needs not wait to take the lease over.
func (k *keeper) leave() error {
	if k.leaseID == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), exitTimeout)
	defer cancel()
	if k.opts.Leave {
		// All that hangs on the lease is ours: the records and the claim go at one revision.
		if _, err := k.client.Revoke(ctx, clientv3.LeaseID(k.leaseID)); err != nil {
			return fmt.Errorf("remove the records (they end with their lease, within %v): %w", k.opts.TTL, err)
		}
		k.log.Info("records removed")
		return nil
	}
	if k.claimKey == "" {
		return nil
	}
	_, err := k.client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(k.claimKey), "=", k.claimRev)).
		Then(clientv3.OpDelete(k.claimKey)).Commit()
	if err != nil {
		k.log.Warn("claim not given back, a successor may have to wait", "at_most", k.opts.TTL/2, "err", err)
	}
	k.log.Info("records stay until their lease ends", "ttl", k.opts.TTL)
	return nil
}
