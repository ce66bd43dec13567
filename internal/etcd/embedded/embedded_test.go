package embedded_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"nuncio/internal/etcd"
	"nuncio/internal/etcd/embedded"
	"nuncio/internal/testkit"
)

// fullDisk is the variable with which the test binary starts itself: it names a directory without much space.
const fullDisk = "EMBEDDED_TEST_FULL_DISK"

func TestMain(m *testing.M) {
	if dir := os.Getenv(fullDisk); dir != "" {
		fillDisk(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

func start(t *testing.T, o embedded.Options) *embedded.Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	s, err := embedded.Start(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func request(t *testing.T, s *embedded.Server, do func(ctx context.Context, put func(k, v string), get func(k string) string)) {
	t.Helper()
	c, err := etcd.Dial(etcd.Config{Endpoints: []string{s.Endpoint()}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	do(ctx, func(k, v string) {
		if _, err := c.Put(ctx, k, v); err != nil {
			t.Fatal(err)
		}
	}, func(k string) string {
		resp, err := c.Get(ctx, k)
		if err != nil {
			t.Fatal(err)
		}
		if len(resp.Kvs) == 0 {
			return ""
		}
		return string(resp.Kvs[0].Value)
	})
}

func TestServerAnswersAndKeepsItsData(t *testing.T) {
	var log bytes.Buffer
	dir := filepath.Join(t.TempDir(), "data")
	o := embedded.Options{Dir: dir, ClientURL: "http://" + testkit.Host() + ":0", Logger: slog.New(slog.NewTextHandler(&log, nil))}
	s := start(t, o)
	request(t, s, func(_ context.Context, put func(k, v string), _ func(string) string) { put("/a", "1") })

	// A second server in the same directory must not wait for the first one's lock.
	if _, err := embedded.Start(t.Context(), o); err == nil || !strings.Contains(err.Error(), "in use by another etcd") {
		t.Errorf("second server on the same directory: %v", err)
	}
	s.Close()

	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("data directory has mode %v, %v; want 0700", info.Mode(), err)
	}
	s = start(t, o)
	defer s.Close()
	request(t, s, func(_ context.Context, _ func(k, v string), get func(string) string) {
		if got := get("/a"); got != "1" {
			t.Errorf("after a restart the value is %q, want 1", got)
		}
	})
	if strings.Contains(log.String(), "level=INFO") {
		t.Errorf("etcd logs below warning:\n%s", log.String())
	}
}

func TestStartNamesTheCause(t *testing.T) {
	taken, err := net.Listen("tcp", testkit.FreeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		options embedded.Options
		want    string
	}{
		"no directory":            {embedded.Options{}, "a data directory is needed"},
		"directory under a file":  {embedded.Options{Dir: file + "/x"}, "make data directory"},
		"address taken":           {embedded.Options{Dir: t.TempDir(), ClientURL: "http://" + taken.Addr().String()}, "is taken"},
		"client URL without port": {embedded.Options{Dir: t.TempDir(), ClientURL: "http://127.0.0.1"}, "is not http://host:port"},
		"client URL with TLS":     {embedded.Options{Dir: t.TempDir(), ClientURL: "https://127.0.0.1:1"}, "is not http://host:port"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := embedded.Start(t.Context(), tt.options)
			if err == nil {
				s.Close()
				t.Fatal("it started")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error is %q, want it to say %q", err, tt.want)
			}
		})
	}
}

func TestStartEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if s, err := embedded.Start(ctx, embedded.Options{Dir: t.TempDir(), ClientURL: "http://" + testkit.Host() + ":0"}); err == nil {
		s.Close() // it may have been ready at once
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	s := start(t, embedded.Options{Dir: t.TempDir(), ClientURL: "http://" + testkit.Host() + ":0"})
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Wait(ctx); err != nil {
		t.Errorf("Wait = %v, want nil", err)
	}
}

// TestWaitReturnsWhyTheServerEnded fills the disk of a server, which etcd does not survive. It does so in a process of
// its own, because the goroutines of such a server stay.
func TestWaitReturnsWhyTheServerEnded(t *testing.T) {
	if os.Getuid() != 0 {
		if os.Getenv("NUNCIO_TEST_STRICT") == "1" {
			t.Fatal("a small file system needs root")
		}
		t.Skip("a small file system needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=140m"); err != nil { // etcd allocates two segments of its log, of 64 MB each
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), fullDisk+"="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "embedded etcd in "+dir+": ") || !strings.HasSuffix(string(out), "no space left on device\nclosed\n") {
		t.Errorf("%v\n%s", err, out)
	}
}

func fillDisk(dir string) {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	s, err := embedded.Start(ctx, embedded.Options{Dir: dir, ClientURL: "http://" + testkit.Host() + ":0"})
	if err != nil {
		fmt.Println("start:", err)
		return
	}
	c, err := etcd.Dial(etcd.Config{Endpoints: []string{s.Endpoint()}}, nil)
	if err != nil {
		fmt.Println("dial:", err)
		return
	}
	go func() {
		for ctx.Err() == nil {
			_, _ = c.Put(ctx, "/a", strings.Repeat("x", 1<<20)) // until it fails
		}
	}()
	fmt.Println(s.Wait(ctx))
	s.Close()
	fmt.Println("closed")
}
