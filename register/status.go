package register

import (
	"slices"
	"strings"
	"sync"
	"time"

	"nuncio/internal/catalog"
)

// Status is the state of a registrar at one moment. It is immutable.
type Status struct {
	Node string `json:"node"`
	Kind string `json:"kind"`
	// State is "starting", "waiting" (for Docker or etcd), "running" (etcd agrees with Docker) or "writing".
	State string `json:"state"`
	// Ready reports that etcd has agreed with Docker once, and that both answer.
	Ready bool `json:"ready"`
	// Docker and Etcd say what is wrong with them; empty while they answer.
	Docker string `json:"docker_error,omitempty"`
	Etcd   string `json:"etcd_error,omitempty"`
	Lease  string `json:"lease,omitempty"` // hexadecimal, as etcdctl prints it
	// Advertise is the address for published ports, or why there is none.
	Advertise string         `json:"advertise,omitempty"`
	Records   []RecordStatus `json:"records"`
	Skipped   []Skipped      `json:"skipped"`
	Warnings  []Skipped      `json:"warnings,omitempty"`
	// Changes is what a dry run would write.
	Changes []Change `json:"changes,omitempty"`
}

// Problem says what is wrong with Docker or etcd; empty when nothing is.
func (s Status) Problem() string {
	var problems []string
	if s.Docker != "" {
		problems = append(problems, "docker: "+s.Docker)
	}
	if s.Etcd != "" {
		problems = append(problems, "etcd: "+s.Etcd)
	}
	return strings.Join(problems, "; ")
}

// RecordStatus is one record of this registrar.
type RecordStatus struct {
	Key         string        `json:"key"`
	Address     string        `json:"address"`
	State       catalog.State `json:"state"`
	Note        string        `json:"note,omitempty"`
	Container   string        `json:"container,omitempty"`
	ContainerID string        `json:"container_id,omitempty"`
	// Written is false until etcd has the record as it should be.
	Written bool `json:"written"`
}

func (r Record) status(key string, drained, written bool) RecordStatus {
	s := RecordStatus{
		Key: key, Address: r.Instance.Addr(), State: r.Instance.State, Note: r.Note,
		Container: r.Origin.Container, ContainerID: shortID(r.Origin.ContainerID), Written: written,
	}
	if drained && s.State == catalog.StateReady {
		s.State, s.Note = catalog.StateDrain, "drained by an operator"
	}
	return s
}

// board collects what the source and the syncer report about themselves.
type board struct {
	mu        sync.Mutex
	status    Status
	desired   *Desired // nil until the source has published
	conflicts []Skipped
	synced    bool // etcd agreed with the newest desired set
	ever      bool // it did so at least once
}

func (b *board) source(p Published) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.status.Docker = errorText(p.Err)
	if p.Desired != nil {
		b.desired, b.status.Warnings, b.status.Advertise = p.Desired, p.Desired.Warnings, p.Advertise
	}
}

func (b *board) store(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.status.Etcd = errorText(err)
	b.synced = b.synced && err == nil
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func (b *board) lease(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.status.Lease = id
}

func (b *board) plan(p plan, synced, dry bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.status.Records, b.conflicts, b.synced = p.records, p.conflicts, synced
	b.ever = b.ever || synced
	if dry {
		b.status.Changes = p.changes
	}
}

func (b *board) read() Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.status
	s.Records = slices.Clone(s.Records)
	s.Skipped = slices.Clone(b.conflicts)
	if b.desired != nil {
		s.Skipped = slices.Concat(b.desired.Skipped, b.conflicts)
	}
	slices.SortStableFunc(s.Skipped, func(x, y Skipped) int { return strings.Compare(x.Container, y.Container) })
	s.Ready = b.ever && s.Docker == "" && s.Etcd == ""
	switch {
	case s.Docker != "" || s.Etcd != "":
		s.State = "waiting"
	case b.desired == nil:
		s.State = "starting"
	case !b.synced:
		s.State = "writing"
	default:
		s.State = "running"
	}
	return s
}

// longestRetry is the longest pause between attempts to reach Docker, etcd or an address.
const longestRetry = 3 * time.Second

// retryDelay returns the pause after the n-th failure in a row (from 0): short at first, because Docker and etcd restart
// fast, and capped, so that an outage that ends is noticed in time.
func retryDelay(n int) time.Duration { return min(50*time.Millisecond<<min(n, 10), longestRetry) }
