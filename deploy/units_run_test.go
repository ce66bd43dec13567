package deploy_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nuncio/internal/testkit"
)

// fakeSystemd runs the commands of shipped units as systemd would. It makes names unique to the test, since all tests
// share Docker's names.
type fakeSystemd struct {
	*docker
	dockerPath string
	address    string
	port       string
	images     map[string]string
}

// service is a unit that runs.
type service struct {
	unit  unitFile
	ended chan struct{}
	err   error // how it ended
}

// commands returns a unit's commands of one kind, such as ExecStart, expanded.
func (f *fakeSystemd) commands(u unitFile, kind string) (commands [][]string) {
	base := strings.TrimSuffix(u.name, ".service")
	prefix, instance, _ := strings.Cut(base, "@")
	image := strings.TrimPrefix(u.all("Service", "Environment")[0], "IMAGE=nuncio/")
	image, _, _ = strings.Cut(image, ":")
	replace := strings.NewReplacer(
		"/usr/bin/docker", f.dockerPath, "%p", f.id+"-"+prefix, "%i", instance, "%H", "core-1",
		"${COREOS_PRIVATE_IPV4}", f.address, "${COREOS_PUBLIC_IPV4}", f.address, "${IMAGE}", f.images[image],
		"nuncio-state", f.id+"-state", ":80:80", ":"+f.port+":80", "\\\n", " ",
		// Tests that run at the same time label their containers too.
		"--label nuncio.", "--label "+f.id+".", "-e NUNCIO_REGISTRAR_NODE", "-e NUNCIO_REGISTRAR_LABEL_PREFIX="+f.id+" -e NUNCIO_REGISTRAR_NODE",
	)
	for _, value := range u.all("Service", kind) {
		words := strings.Fields(replace.Replace(value))
		for i, word := range words {
			if i > 0 && words[len(words)-2] == "80" && i == len(words)-3 {
				words[i] = f.id + "-" + word // the container that the classic registrar follows
			}
		}
		if !slices.Contains(words, "pull") { // the images are here, under their ids
			commands = append(commands, words)
		}
	}
	return commands
}

func (f *fakeSystemd) start(file, name string) *service {
	f.t.Helper()
	text, err := os.ReadFile(filepath.Join("fleet", file))
	if err != nil {
		f.t.Fatal(err)
	}
	s := &service{unit: parseUnit(f.t, name, string(text)), ended: make(chan struct{})}
	for _, words := range f.commands(s.unit, "ExecStartPre") {
		if out, err := exec.Command(strings.TrimPrefix(words[0], "-"), words[1:]...).CombinedOutput(); err != nil && !strings.HasPrefix(words[0], "-") {
			f.t.Fatalf("%q: %v\n%s", words, err, out)
		}
	}
	main := f.commands(s.unit, "ExecStart")[0]
	cmd := exec.Command(main[0], main[1:]...)
	var output strings.Builder
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	go func() {
		defer close(s.ended)
		s.err = cmd.Wait()
	}()
	own := main[slices.Index(main, "--name")+1]
	f.whole.Cleanup(func() {
		_, _ = f.try("rm", "-fv", own) // it is gone already when the test passed
		<-s.ended
		if f.whole.Failed() {
			f.whole.Logf("%s: %q\n%s", name, main, output.String())
		}
	})
	return s
}

// stop runs ExecStop and fails the test unless the unit calls the exit code a success.
func (f *fakeSystemd) stop(s *service) {
	f.t.Helper()
	for _, words := range f.commands(s.unit, "ExecStop") {
		if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			f.t.Errorf("%q: %v\n%s", words, err, out)
		}
	}
	err := f.wait(s)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 143 {
		return // by SIGTERM, which SuccessExitStatus= allows
	}
	if err != nil {
		f.t.Errorf("%s ended with %v, want a clean end", s.unit.name, err)
	}
}

func (f *fakeSystemd) wait(s *service) error {
	f.t.Helper()
	select {
	case <-s.ended:
		return s.err
	case <-time.After(patience):
		f.t.Fatalf("%s does not end", s.unit.name)
		return nil
	}
}

// TestUnitsServeThePage runs the commands of the shipped units: the single ones, the templates, and the registrar of a
// whole machine. It kills Apache, which the running registrar must find again when it is back.
func TestUnitsServeThePage(t *testing.T) {
	t.Parallel()
	d := newDocker(t)
	f := &fakeSystemd{docker: d, dockerPath: tool(t, "docker", "docker.io"), images: images(t), port: freePort(t)}
	f.address = d.network("machine")
	member := d.create("etcd", f.images["etcd"], []string{"machine"}, []string{"-p", f.address + ":2379:2379"},
		[]string{"--listen-client-urls=http://0.0.0.0:2379", "--advertise-client-urls=http://" + f.address + ":2379", "--log-level=error"})
	member.start()
	t.Cleanup(func() {
		if _, err := d.try("volume", "rm", d.id+"-state"); err != nil {
			t.Error(err)
		}
	})
	haproxy := f.start("haproxy.service", "haproxy.service")

	for _, c := range []struct{ app, register, appName, registerName, key string }{
		{"apache.service", "apache-register.service", "apache.service", "apache-register.service", d.id + "-apache"},
		{"apache@.service", "apache-register@.service", "apache@1.service", "apache-register@1.service", d.id + "-apache-1"},
		{"apache.service", "nuncio-registrar.service", "apache.service", "nuncio-registrar.service", "core-1:" + d.id + "-apache"},
	} {
		ok := t.Run(c.registerName, func(t *testing.T) {
			d.t = t
			app, register := f.start(c.app, c.appName), f.start(c.register, c.registerName)
			f.page(http.StatusOK)
			keys, err := member.exec("etcdctl", "get", "--prefix", "--keys-only", "/services/")
			if err != nil || strings.TrimSpace(keys) != "/services/apache-A/"+c.key {
				t.Errorf("records: %q, %v; want only /services/apache-A/%s", keys, err, c.key)
			}
			main := f.commands(app.unit, "ExecStart")[0]
			d.run("kill", main[slices.Index(main, "--name")+1])
			if err := f.wait(app); err == nil {
				t.Error("Apache was killed and its unit ended well")
			}
			f.page(http.StatusServiceUnavailable)
			app = f.start(c.app, c.appName) // Restart=always
			f.page(http.StatusOK)
			f.stop(app)
			f.stop(register)
			f.page(http.StatusServiceUnavailable)
		})
		d.t = t
		if !ok {
			break
		}
	}
	f.stop(haproxy)
}

// page waits until HAProxy answers with status.
func (f *fakeSystemd) page(status int) {
	f.t.Helper()
	transport := &http.Transport{DisableKeepAlives: true}
	client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	testkit.Eventually(f.t, patience, func() error {
		resp, err := client.Get("http://" + f.address + ":" + f.port + "/")
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode != status {
			return fmt.Errorf("%s, want %d", resp.Status, status)
		}
		return nil
	})
}
