package deploy_test

import (
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/go-systemd/v22/unit"
)

// unitFile is a parsed unit.
type unitFile struct {
	name    string
	text    string
	options []*unit.UnitOption
}

func (u unitFile) all(section, name string) (values []string) {
	for _, o := range u.options {
		if o.Section == section && o.Name == name {
			values = append(values, o.Value)
		}
	}
	return values
}

// fleetOptions has the options that fleet 1.0 knows in [X-Fleet], each with those that it excludes. fleet only warns about
// a misspelt option and ignores it, so the unit may run on the wrong machine.
var fleetOptions = map[string][]string{
	"MachineID":       {"MachineOf", "Conflicts", "Global", "Replaces"},
	"MachineOf":       {"Global", "MachineID"},
	"MachineMetadata": nil,
	"Conflicts":       {"MachineID", "Replaces"},
	"Global":          {"MachineID", "MachineOf", "Replaces"},
	"Replaces":        {"Global", "Conflicts", "MachineID"},
}

// lint returns what is wrong with units that are deployed together.
func lint(units []unitFile) (faults []string) {
	add := func(u unitFile, what string) { faults = append(faults, u.name+": "+what) }
	names := map[string]bool{}
	for _, u := range units {
		names[u.name] = true
	}
	for _, u := range units {
		for _, what := range slices.Concat(lintText(u), lintFleet(u, names), lintService(u)) {
			add(u, what)
		}
		if circular(u.name, units, nil) {
			add(u, "MachineOf= leads back to itself: neither unit can ever be placed")
		}
	}
	return faults
}

var (
	unitName = regexp.MustCompile(`^[a-zA-Z0-9:_.\\-]+(@[a-zA-Z0-9:_.\\-]*)?\.(service|socket|timer|target|path)$`)
	asName   = regexp.MustCompile(`(?:--name[ =]|docker (?:stop|rm|kill|exec)\b(?: -\S+(?: \d+)?)* )(\S+)`)
)

func lintText(u unitFile) (faults []string) {
	if !unitName.MatchString(u.name) || len(u.name) > 256 {
		faults = append(faults, "fleet refuses this name")
	}
	continued := false
	for line := range strings.SplitSeq(u.text, "\n") {
		if len(line) > 2048 {
			faults = append(faults, "a line has more than 2048 bytes: fleet refuses the unit")
		}
		if trimmed := strings.TrimSpace(line); continued && (strings.HasPrefix(trimmed, "#") || strings.HasPrefix(trimmed, ";")) {
			faults = append(faults, "comment within a continued line: fleet refuses the unit")
		}
		continued = strings.HasSuffix(line, `\`)
	}
	return faults
}

func lintFleet(u unitFile, names map[string]bool) (faults []string) {
	for _, o := range u.options {
		if o.Section != "X-Fleet" {
			continue
		}
		never, known := fleetOptions[o.Name]
		if !known {
			faults = append(faults, "fleet does not know "+o.Name+"= and would ignore it")
		}
		for _, other := range never {
			if len(u.all("X-Fleet", other)) > 0 {
				faults = append(faults, o.Name+"= together with "+other+"=: fleet refuses the unit")
			}
		}
	}
	for _, target := range u.all("X-Fleet", "MachineOf") {
		if !names[template(target)] {
			faults = append(faults, "MachineOf="+target+": there is no such unit")
		}
		for _, glob := range conflicts(u) {
			if hit, _ := path.Match(glob, target); hit {
				faults = append(faults, "MachineOf= and Conflicts= name the same unit: fleet can never place it")
			}
		}
	}
	return faults
}

func lintService(u unitFile) (faults []string) {
	if !strings.HasSuffix(u.name, ".service") {
		return nil
	}
	if restart := u.all("Service", "Restart"); !slices.Equal(restart, []string{"always"}) {
		faults = append(faults, "Restart= is not always: only systemd brings a failed unit back, fleet never does")
	}
	if len(u.all("Service", "RestartSec")) != 1 {
		faults = append(faults, "no RestartSec=: five quick failures would end Restart= for good")
	}
	if len(u.all("Unit", "BindsTo")) > 0 && !slices.ContainsFunc(u.all("Install", "WantedBy"), func(by string) bool { return slices.Contains(u.all("Unit", "BindsTo"), by) }) {
		faults = append(faults, "BindsTo= without WantedBy= of the same unit: it stays dead when that unit has restarted")
	}
	faults = append(faults, lintOrder(u)...)
	for _, o := range u.options {
		if o.Section != "Service" || !strings.HasPrefix(o.Name, "Exec") {
			continue
		}
		for _, m := range asName.FindAllStringSubmatch(o.Value, -1) {
			// %n and %N of an instance hold its "@".
			if strings.Contains(m[1], "@") || strings.Contains(u.name, "@") && (strings.Contains(m[1], "%n") || strings.Contains(m[1], "%N")) {
				faults = append(faults, o.Name+"=: Docker refuses @ in the name "+m[1])
			}
		}
		if o.Name == "ExecStartPre" && strings.Contains(o.Value, " pull ") && !strings.HasPrefix(o.Value, "-") {
			faults = append(faults, "docker pull without \"-\": nothing would start while the registry is away")
		}
		if strings.Contains(o.Value, "${COREOS_") && !slices.Contains(u.all("Service", "EnvironmentFile"), "/etc/environment") {
			faults = append(faults, "uses an address without EnvironmentFile=/etc/environment: empty, it would mean all interfaces")
		}
	}
	return faults
}

// beforeUnits are the services that must still run while a unit stops: systemd stops in the opposite order. etcd's are
// those of Container Linux and of distributions; one that is not installed does not matter.
var beforeUnits = []string{"docker.service", "etcd.service", "etcd2.service", "etcd-member.service"}

// lintOrder finds a container that a clean reboot stops after Docker, or after etcd: then neither fleet nor the registrar
// can say good-bye, and the container's service is away for three times as long.
func lintOrder(u unitFile) (faults []string) {
	if !slices.ContainsFunc(u.all("Service", "ExecStart"), func(command string) bool { return strings.Contains(command, "docker run") }) {
		return nil
	}
	after := strings.Fields(strings.Join(u.all("Unit", "After"), " "))
	for _, service := range beforeUnits {
		if !slices.Contains(after, service) {
			faults = append(faults, "After= lacks "+service+", so it may end first at a reboot")
		}
	}
	return faults
}

func conflicts(u unitFile) (globs []string) {
	for _, v := range u.all("X-Fleet", "Conflicts") {
		for glob := range strings.FieldsSeq(v) {
			globs = append(globs, specify(u.name, glob))
		}
	}
	return globs
}

// specify expands what fleet itself expands in [X-Fleet], for an instance called 1.
func specify(name, s string) string {
	base := strings.TrimSuffix(name, path.Ext(name))
	prefix, _, _ := strings.Cut(base, "@")
	return strings.NewReplacer("%p", prefix, "%i", "1", "%n", name, "%N", base).Replace(s)
}

// template names the file of an instance: apache@%i.service and apache@1.service are apache@.service.
func template(name string) string {
	prefix, _, ok := strings.Cut(name, "@")
	if !ok {
		return name
	}
	return prefix + "@" + path.Ext(name)
}

func circular(name string, units []unitFile, seen []string) bool {
	if slices.Contains(seen, name) {
		return true
	}
	i := slices.IndexFunc(units, func(u unitFile) bool { return u.name == name })
	if i < 0 {
		return false
	}
	return slices.ContainsFunc(units[i].all("X-Fleet", "MachineOf"), func(target string) bool {
		return circular(template(target), units, append(slices.Clone(seen), name))
	})
}

func parseUnit(t *testing.T, name, text string) unitFile {
	t.Helper()
	options, err := unit.DeserializeOptions(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return unitFile{name, text, options}
}

func TestUnitsPassLint(t *testing.T) {
	for _, dir := range []string{"fleet", "systemd"} {
		var units []unitFile
		for _, file := range unitFiles(t, dir) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			units = append(units, parseUnit(t, filepath.Base(file), string(text)))
		}
		for _, fault := range lint(units) {
			t.Errorf("%s/%s", dir, fault)
		}
	}
}

// TestLint checks that lint finds each mistake of the units in the CoreOS tutorial.
func TestLint(t *testing.T) {
	const good = "[Unit]\nAfter=docker.service etcd.service etcd2.service etcd-member.service\n[Service]\nEnvironmentFile=/etc/environment\nRestart=always\nRestartSec=5s\nExecStart=/usr/bin/docker run --name %p IMAGE\n"
	for _, c := range []struct{ name, unit, text, want string }{
		{"a valid unit", "a.service", good, ""},
		{"misspelt option", "a.service", good + "[X-Fleet]\nConflict=b.service\n", "does not know Conflict="},
		{"option of an old fleet", "a.service", good + "[X-Fleet]\nX-ConditionMachineOf=b.service\n", "does not know X-ConditionMachineOf="},
		{"forbidden pair", "a.service", good + "[X-Fleet]\nGlobal=true\nMachineOf=b.service\n", "together with MachineOf="},
		{"unplaceable", "a.service", good + "[X-Fleet]\nMachineOf=b.service\nConflicts=b*.service\n", "can never place"},
		{"target missing", "a.service", good + "[X-Fleet]\nMachineOf=c.service\n", "no such unit"},
		{"circle", "a.service", good + "[X-Fleet]\nMachineOf=a.service\n", "leads back"},
		{"full name of an instance as container name", "a@.service", strings.ReplaceAll(good, "%p", "%n"), "refuses @"},
		{"full name in docker stop", "a@.service", good + "ExecStop=/usr/bin/docker stop -t 3 %n\n", "refuses @"},
		{"literal @", "a.service", strings.ReplaceAll(good, "%p", "a@1"), "refuses @"},
		{"no restart", "a.service", strings.ReplaceAll(good, "Restart=always\n", ""), "Restart= is not always"},
		{"no pause between restarts", "a.service", strings.ReplaceAll(good, "RestartSec=5s\n", ""), "no RestartSec="},
		{"tied to death", "a.service", "[Unit]\nBindsTo=b.service\n" + good, "stays dead"},
		{"tied and wanted", "a.service", "[Unit]\nBindsTo=b.service\n" + good + "[Install]\nWantedBy=b.service\n", ""},
		{"fatal pull", "a.service", good + "ExecStartPre=/usr/bin/docker pull IMAGE\n", "registry is away"},
		{"address that may be empty", "a.service", strings.ReplaceAll(good, "EnvironmentFile=", "EnvironmentFile=-") + "ExecStartPre=/bin/echo ${COREOS_PRIVATE_IPV4}\n", "all interfaces"},
		{"etcd may end first", "a.service", strings.ReplaceAll(good, " etcd2.service", ""), "After= lacks etcd2.service"},
		{"name", "a b.service", good, "refuses this name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			faults := lint([]unitFile{parseUnit(t, c.unit, c.text), {name: "b.service"}})
			faults = slices.DeleteFunc(faults, func(f string) bool { return strings.HasPrefix(f, "b.service: ") })
			switch {
			case c.want == "" && len(faults) > 0:
				t.Errorf("found %q in a valid unit:\n%s", faults, c.text)
			case c.want != "" && !strings.Contains(strings.Join(faults, "\n"), c.want):
				t.Errorf("found %q, want %q, in\n%s", faults, c.want, c.text)
			}
		})
	}
	// The parser refuses these two as well, so lint gets the text alone.
	for text, want := range map[string]string{
		good + "ExecStop=/bin/echo " + strings.Repeat("x", 2048) + "\n": "2048 bytes",
		good + "ExecStop=/bin/echo \\\n# no\n  x\n":                     "comment within",
	} {
		if faults := lint([]unitFile{{name: "a.service", text: text}}); !strings.Contains(strings.Join(faults, "\n"), want) {
			t.Errorf("found %q, want %q, in\n%s", faults, want, text)
		}
	}
}

// TestUnitsPassSystemd verifies the units with systemd-analyze. The programs that they start may not be installed here, so
// /bin/true replaces them.
func TestUnitsPassSystemd(t *testing.T) {
	analyze := tool(t, "systemd-analyze", "systemd")
	dir := t.TempDir()
	var files []string
	for _, file := range slices.Concat(unitFiles(t, "fleet"), unitFiles(t, "systemd")) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		changed := regexp.MustCompile(`/usr/bin/docker|/usr/local/bin/nuncio(-registrar)?`).ReplaceAllString(string(text), "/bin/true")
		// A template is verified as an instance of it.
		to := filepath.Join(dir, strings.Replace(filepath.Base(file), "@.", "@1.", 1))
		if err := os.WriteFile(to, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, to)
	}
	out, err := exec.Command(analyze, append([]string{"verify", "--recursive-errors=no"}, files...)...).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	for _, file := range unitFiles(t, "systemd") {
		out, err = exec.Command(analyze, "security", "--offline=yes", "--threshold=20", file).CombinedOutput()
		if err != nil {
			t.Errorf("%s is exposed more than 2.0 of 10: %v\n%s", file, err, out)
		}
	}
}

func unitFiles(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(dir + "/*.service")
	if err != nil || len(files) == 0 {
		t.Fatalf("units in %s: %v, %v", dir, files, err)
	}
	return files
}

// tool returns the path of a program. Without it the test is skipped, or fails if NUNCIO_TEST_STRICT=1.
func tool(t testing.TB, name, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if os.Getenv("NUNCIO_TEST_STRICT") == "1" {
		t.Fatalf("%s is missing and NUNCIO_TEST_STRICT=1: install %s", name, pkg)
	}
	t.Skipf("%s is missing: install %s", name, pkg)
	return ""
}
