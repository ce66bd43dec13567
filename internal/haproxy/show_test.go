package haproxy_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nuncio/internal/haproxy"
)

const (
	proc26 = "#<PID>          <type>          <reloads>       <uptime>        <version>      \n" +
		"19899           master          5 [failed: 2]   0d00h00m02s     2.6.12-1+deb12u4\n# workers\n" +
		"19950           worker          0               0d00h00m01s     2.6.12-1+deb12u4\n# old workers\n" +
		"19902           worker          3               0d00h00m09s     2.6.12-1+deb12u4\n# programs\n\n"
	proc24 = "#<PID>          <type>          <relative PID>  <reloads>       <uptime>        <version>\n" +
		"1162            master          0               5               0d00h02m07s     2.4.0\n# workers\n" +
		"1271            worker          1               0               0d00h00m00s     2.4.0\n# old workers\n" +
		"1233            worker          [was: 1]        3               0d00h00m43s     2.4.0\n# programs\n" +
		"1244            foo             -               0               0d00h00m00s     -\n"
	// A failed reload on 3.1 and later: nobody under workers, the survivor below old workers.
	procFailed = "#<PID>          <type>          <reloads>       <uptime>        <version>\n" +
		"10              master          1 [failed: 1]   0d00h00m02s     3.2.26\n# workers\n# old workers\n" +
		"12              worker          1               0d00h00m01s     3.2.26\n# programs\n"
)

func TestParseProcesses(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       haproxy.Processes
	}{
		{"2.6 with an old worker and failed reloads", proc26, haproxy.Processes{
			Master:     haproxy.Process{Pid: 19899, Kind: "master", Reloads: 5, Failed: 2, Version: "2.6.12-1+deb12u4"},
			Workers:    []haproxy.Process{{Pid: 19950, Kind: "worker", Version: "2.6.12-1+deb12u4"}},
			OldWorkers: []haproxy.Process{{Pid: 19902, Kind: "worker", Reloads: 3, Version: "2.6.12-1+deb12u4"}},
		}},
		{"2.4 has one column more", proc24, haproxy.Processes{
			Master:     haproxy.Process{Pid: 1162, Kind: "master", Reloads: 5, Version: "2.4.0"},
			Workers:    []haproxy.Process{{Pid: 1271, Kind: "worker", Version: "2.4.0"}},
			OldWorkers: []haproxy.Process{{Pid: 1233, Kind: "worker", Reloads: 3, Version: "2.4.0"}},
		}},
		{"the survivor of a failed reload", procFailed, haproxy.Processes{
			Master:     haproxy.Process{Pid: 10, Kind: "master", Reloads: 1, Failed: 1, Version: "3.2.26"},
			OldWorkers: []haproxy.Process{{Pid: 12, Kind: "worker", Reloads: 1, Version: "3.2.26"}},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := haproxy.ParseProcesses(c.text)
			if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
				t.Errorf("%v (-want +got)\n%s", err, diff)
			}
		})
	}
}

func TestParseProcessesRefusesWhatItCannotRead(t *testing.T) {
	for _, text := range []string{
		"", "\n", "Unknown command", "# workers\n1 worker 0 x y\n",
		"#<PID> <type> <reloads>\nx master 0\n", "#<PID> <type> <reloads>\n-4 master 0\n", "#<PID> <type> <reloads>\n7 master\n",
	} {
		if got, err := haproxy.ParseProcesses(text); err == nil {
			t.Errorf("%q: got %+v, want an error", text, got)
		}
	}
}

func TestParseInfo(t *testing.T) {
	got, err := haproxy.ParseInfo("Name: HAProxy\nPid: 42\nUptime: 0d 0h00m00s\n\n")
	if err != nil || got.Pid != 42 || got.Fields["Uptime"] != "0d 0h00m00s" {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, text := range []string{"", "Pid: x\n", "Pid: 0\n", "Name: HAProxy\n"} {
		if got, err := haproxy.ParseInfo(text); err == nil {
			t.Errorf("%q: got %+v, want an error", text, got)
		}
	}
}

func TestParseReload(t *testing.T) {
	for _, c := range []struct {
		text string
		want haproxy.ReloadReply
	}{
		{"", haproxy.ReloadReply{}},
		{"Success=1\n--\n[NOTICE] fine\n\n", haproxy.ReloadReply{Known: true, Success: true, Log: "[NOTICE] fine"}},
		{"Success=0\n--\n[ALERT] no\n", haproxy.ReloadReply{Known: true, Log: "[ALERT] no"}},
		{"Can't connect to the target CLI!\n", haproxy.ReloadReply{Log: "Can't connect to the target CLI!"}},
	} {
		if got := haproxy.ParseReload(c.text); got != c.want {
			t.Errorf("%q: got %+v, want %+v", c.text, got, c.want)
		}
	}
}

func FuzzParseShow(f *testing.F) {
	for _, seed := range []string{proc26, proc24, procFailed, "Pid: 1\n", "Success=1\n--\nx", "[6]: x\n", "HAProxy version 3.0.1\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if p, err := haproxy.ParseProcesses(text); err == nil {
			if p.Master.Pid <= 0 || p.Master.Kind != "master" {
				t.Errorf("accepted without a master: %+v", p)
			}
			for _, w := range append(p.Workers, p.OldWorkers...) {
				if w.Pid <= 0 {
					t.Errorf("accepted a worker without pid: %+v", w)
				}
			}
		}
		if i, err := haproxy.ParseInfo(text); err == nil && i.Pid <= 0 {
			t.Errorf("accepted without pid: %+v", i)
		}
		if r := haproxy.ParseReload(text); r.Success && !strings.HasPrefix(strings.TrimLeft(text, " \t\v\f\r\u0085\u00a0"), "Success=1") {
			t.Errorf("success from %q", text)
		}
		if v, err := haproxy.ParseVersion([]byte(text)); err == nil && (v.Major > 9999 || !strings.Contains(text, v.Text)) {
			t.Errorf("version %+v", v)
		}
	})
}
