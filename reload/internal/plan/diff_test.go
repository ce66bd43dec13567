package plan_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nuncio/internal/haproxy"
	"nuncio/reload/internal/plan"
)

// A comparison that looks only at what is between the first and the last difference finds what one that looks at
// everything would.
func TestDiffFindsTheSectionsThatChanged(t *testing.T) {
	rnd := rand.New(rand.NewPCG(11, 12))
	pick := func(from ...string) string { return from[rnd.IntN(len(from))] }
	servers := func() (text string) {
		for range rnd.IntN(3) {
			text += " server " + pick("a", "b") + " 192.0.2." + pick("1", "2") + ":80\n"
		}
		return text
	}
	cut := func(text string) haproxy.Text {
		var pieces []haproxy.Text
		for text != "" {
			n := 1 + rnd.IntN(len(text))
			pieces, text = append(pieces, haproxy.NewText(text[:n])), text[n:]
		}
		return haproxy.Join(pieces...)
	}
	same, reloads := 0, 0
	for range 20000 {
		var before []string
		for i := range 1 + rnd.IntN(5) {
			head := pick("backend ", "backend ", "frontend ") + pick("x", "y") + "\n"
			if i == 0 && rnd.IntN(3) == 0 {
				head = pick("# a comment\n", "\n", " # \n\n")
			}
			before = append(before, head+servers())
		}
		after := slices.Clone(before)
		for range rnd.IntN(3) {
			i := rnd.IntN(len(after))
			head, _, _ := strings.Cut(after[i], "\n")
			switch rnd.IntN(12) {
			case 0:
				after = slices.Delete(after, i, i+1)
				after = append(after, "backend new\n")
			case 1:
				after = slices.Insert(after, i, "backend "+pick("x", "new")+"\n")
			case 2:
				after[i] = head + "\n mode tcp\n"
			case 3:
				after[i] = after[i] + pick("#\n", "\n", "# backend\n", " backendx\n")
			case 4:
				after[i] = "#" + after[i]
			default:
				after[i] = head + "\n" + servers()
			}
		}
		old, next := strings.Join(before, ""), strings.Join(after, "")
		found, difference, reason := model(cut(old)).Diff(cut(next))
		whole, kept := model(haproxy.NewText(next)).Texts(), model(haproxy.NewText(old)).Texts()
		if diff := cmp.Diff(whole, texts(found)); reason == "" && diff != "" {
			t.Fatalf("%q and %q: sections (-all of the text +found):\n%s", old, next, diff)
		}
		if reason != "" || len(difference.Came)+len(difference.Gone) > 0 {
			reloads++
			if len(whole) == len(kept) && onlyServersDiffer(kept, whole) {
				t.Fatalf("%q and %q: %s", old, next, reason)
			}
			continue
		}
		same++
		if !onlyServersDiffer(kept, whole) {
			t.Fatalf("%q and %q differ in more than servers", old, next)
		}
		for i := range whole {
			if slices.Contains(difference.Changed, plan.Pair{Old: i, New: i}) != (whole[i] != kept[i]) {
				t.Fatalf("%q and %q: changed %v", old, next, difference.Changed)
			}
		}
	}
	if same < 5000 || reloads < 2000 {
		t.Errorf("%d comparisons found servers only, %d something else: the test says nothing of one of them", same, reloads)
	}
}

func texts(m *plan.Model) []string {
	if m == nil {
		return nil
	}
	return m.Texts()
}

// onlyServersDiffer is the rule, as plainly as it can be put for the texts above.
func onlyServersDiffer(before, after []string) bool {
	rest := func(section string) string {
		var kept []string
		for line := range strings.Lines(section) {
			words := strings.Fields(line)
			if len(words) == 0 || words[0][0] == '#' || words[0] == "server" && strings.HasPrefix(section, "backend") {
				continue
			}
			kept = append(kept, strings.Join(words, " "))
		}
		return strings.Join(kept, "\n")
	}
	return slices.EqualFunc(before, after, func(x, y string) bool { return rest(x) == rest(y) })
}
