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

// TestMembersOfEtcdFail stops the members of a real cluster: one after the other, so that the leader is among them, hung
// and then killed; then two at once, which leaves no quorum. Traffic never stops, and changes flow while there is a quorum.
func TestMembersOfEtcdFail(t *testing.T) {
	t.Parallel()
	e := newEnv(t, testkit.OneHAProxy(t))
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
		// The test's own client may try the dead member first.
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
		// Hung before killed: the kill moves nuncio's watch to a different member, and the hung one would not be tested.
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
	testkit.Eventually(t, 60*time.Second, func() error { return e.ready("etcd: last answer") })
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

// putOver replaces the value that a key has now. A hung member carries out a put that this client gave up on when it
// resumes: without the condition that would undo later changes.
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

// ready returns an error unless the answer of /readyz contains a text.
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
