package deploy_test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"testing"
	"time"

	"nuncio/internal/testkit"
)

// TestCompose runs the file with every Compose of this machine: docker-compose 1.29 and Docker's plugin.
func TestCompose(t *testing.T) {
	t.Parallel()
	d := newDocker(t)
	var found [][]string
	for _, command := range [][]string{{"docker-compose"}, {"docker", "compose"}} {
		if exec.Command(command[0], append(command[1:], "version")...).Run() == nil {
			found = append(found, command)
		}
	}
	if len(found) == 0 {
		tool(t, "docker-compose", "docker-compose")
	}
	images(t)
	for _, command := range found {
		t.Run(fmt.Sprint(command), func(t *testing.T) {
			address := testkit.FreeAddr(t)
			project := d.id
			compose := func(args ...string) ([]byte, error) {
				cmd := exec.Command(command[0], append(append(command[1:], "-p", project, "-f", "compose/docker-compose.yml"), args...)...)
				cmd.Env = append(os.Environ(), "VERSION=test", "IMAGE_PREFIX="+imagePrefix, "HTTP="+address)
				return cmd.CombinedOutput()
			}
			if out, err := compose("config", "-q"); err != nil || len(out) > 0 {
				t.Fatalf("config: %v\n%s", err, out)
			}
			t.Cleanup(func() {
				if t.Failed() {
					out, _ := compose("logs", "--tail=40") // a help only; the failure is reported
					t.Logf("%s", out)
				}
				if out, err := compose("down", "-v", "-t", "5"); err != nil {
					t.Errorf("down: %v\n%s", err, out)
				}
			})
			if out, err := compose("up", "-d"); err != nil {
				t.Fatalf("up: %v\n%s", err, out)
			}
			by := map[string]bool{}
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
			testkit.Eventually(t, patience, func() error {
				name, err := ask(client, "http://"+address+"/", false)
				if err != nil {
					return err
				}
				by[name] = true
				if len(by) != 2 {
					return fmt.Errorf("the page comes from %v, want two Apaches", by)
				}
				return nil
			})
			if out, err := compose("exec", "-T", "haproxy", "nuncio", "health", "--ready"); err != nil {
				t.Errorf("ready: %v\n%s", err, out)
			}
		})
	}
}
