package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"nuncio/internal/testkit"
)

// TestMembersOfEtcdFail takes the members of a real cluster away: one after the other, whichever leads, dead or hung, then
// two at once, which leaves no quorum. Traffic never stops, and changes flow whenever there is a quorum.
func TestMembersOfEtcdFail(t *testing.T) {
	t.Parallel()
	all := testkit.HAProxies(t)
	e := newEnv(t, all[len(all)-1])
	members := testkit.StartEtcdCluster(t, 3)
	var endpoints []string
	for _, m := range members {
		endpoints = append(endpoints, m.Endpoint)
	}
	e.client = members[0].Client(members[1:]...)
	e.args[1] = "--etcd-endpoints=" + strings.Join(endpoints, ",")
	e.put("web/a", e.webs[0].Addr)
	e.start()
	changes := 0
	follows := func(when string) {
		t.Helper()
		changes++
		value := e.webs[changes%2].Addr
		// The test's own client meets the dead member too.
		testkit.Eventually(t, 60*time.Second, func() error { return e.putOver("web/a", value, 3*time.Second) })
		testkit.Eventually(t, 60*time.Second, func() error {
			got, err := e.get()
			if want := fmt.Sprintf("web%d", changes%2); err == nil && got != want {
				err = fmt.Errorf("%s: %q answers, want %q", when, got, want)
			}
			return err
		})
	}
	follows("all members")
	load := testkit.StartLoad("http://" + e.http + "/")
	defer load.Stop()
	for i, m := range members {
		// First hung, then dead: a death moves nuncio's watch away, and then it would never be at a member that hangs.
		m.Pause()
		follows(fmt.Sprintf("with member %d hung", i))
		m.Resume()
		follows(fmt.Sprintf("with member %d awake", i))
		m.Kill()
		follows(fmt.Sprintf("without member %d", i))
		m.Start()
		follows(fmt.Sprintf("with member %d again", i))
	}

	members[0].Kill()
	members[1].Kill()
	testkit.Eventually(t, 60*time.Second, func() error { return e.ready("etcd: last heard") })
	if _, err := e.get(); err != nil {
		t.Errorf("without a quorum: %v", err)
	}
	members[0].Start()
	follows("with a quorum again")
	testkit.Eventually(t, 60*time.Second, func() error { return e.ready("running") })
	members[1].Start()
	follows("with all members again")
	r := load.Stop()
	t.Logf("%d requests, %d failed", r.Done, r.Failed)
	if r.Done == 0 || r.Failed > 0 {
		t.Errorf("%d of %d requests failed, the first with: %v", r.Failed, r.Done+r.Failed, r.First)
	}
}

// putOver puts in place of what stands there now. A put that a hung member received, and this client gave up on, is carried out
// when that member wakes: without the condition it would then undo the changes that came after it.
func (e *env) putOver(key, value string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	key = "/services/" + key
	now, err := e.client.Get(ctx, key)
	if err != nil {
		return err
	}
	if len(now.Kvs) == 0 {
		return fmt.Errorf("%s is gone", key)
	}
	if string(now.Kvs[0].Value) == value {
		return nil
	}
	resp, err := e.client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", now.Kvs[0].ModRevision)).Then(clientv3.OpPut(key, value)).Commit()
	if err == nil && !resp.Succeeded {
		err = fmt.Errorf("%s was changed meanwhile", key)
	}
	return err
}

// ready wants a text in the answer of /readyz.
func (e *env) ready(want string) error {
	resp, err := http.Get("http://" + e.admin + "/readyz")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && !strings.Contains(string(body), want) {
		err = errors.New(string(body))
	}
	return err
}
