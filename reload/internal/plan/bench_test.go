package plan_test

import (
	"fmt"
	"strings"
	"testing"

	"nuncio/internal/haproxy"
	"nuncio/reload/internal/plan"
)

// BenchmarkPlanAfterOneChange moves one server of a backend of 100, in a text that shares all other backends, as the shipped
// templates make it, and compares the digests.
func BenchmarkPlanAfterOneChange(b *testing.B) {
	for _, instances := range []int{10_000, 100_000} {
		b.Run(fmt.Sprint(instances), func(b *testing.B) {
			parts := []haproxy.Text{haproxy.NewText(planHead)}
			for i := range instances / 100 {
				parts = append(parts, haproxy.NewText(backendOf100(i, 0)))
			}
			var texts []haproxy.Text // made beforehand: rendering is not measured here
			for turn := range 1000 {
				texts = append(texts, haproxy.NewText(backendOf100(turn*7%(instances/100), turn)))
			}
			turn := 0
			next := func() haproxy.Files {
				turn++
				n := turn % len(texts)
				parts[1+n*7%(instances/100)] = texts[n]
				files, err := haproxy.FilesOf(map[string]haproxy.Text{haproxy.ConfigFile: haproxy.Join(parts...)})
				if err != nil {
					b.Fatal(err)
				}
				return files
			}
			planner := plan.New(haproxy.Version{Major: 3})
			now := next()
			m := model(now.Text(haproxy.ConfigFile))
			b.ReportAllocs()
			for b.Loop() {
				files := next()
				p, reason := planner.Plan(m, now, files, nil)
				if p == nil {
					b.Fatal(reason)
				}
				m, now = p.Next, files
				if len(files.Digest()) == 0 {
					b.Fatal("no digest")
				}
			}
		})
	}
}

func backendOf100(i, turn int) string {
	var text strings.Builder
	fmt.Fprintf(&text, "\nbackend fleet-%d\n    balance roundrobin\n", i)
	for j := range 100 {
		port := 80
		if j == turn%100 {
			port = 1000 + turn%1000
		}
		fmt.Fprintf(&text, "    server instance-%d 10.0.%d.%d:%d id %d weight 100 check\n", j, i%250, j, port, 1000+j)
	}
	return text.String()
}
