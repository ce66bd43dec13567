package render_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"sort"
	"strconv"
	"strings"
	"text/template"
)

// confdPrints is what confd itself prints for a template: text/template with confd's functions and nothing else, written after
// confd 0.16 and memkv 0.1. It shares no code with package render. keys are those of etcd; prefix and asked are the resource's.
func confdPrints(text, prefix string, asked []string, keys map[string]string, getenv map[string]string) (string, error) {
	if !strings.HasPrefix(prefix, "/") {
		prefix = "/" + prefix
	}
	kv := map[string]string{}
	for key, value := range keys {
		for _, a := range asked {
			full := path.Join(prefix, a)
			if key == full || strings.HasPrefix(key, strings.TrimSuffix(full, "/")+"/") {
				kv[path.Join("/", strings.TrimPrefix(key, prefix))] = value
			}
		}
	}
	m := memkv(kv)
	tmpl, err := template.New("x").Funcs(template.FuncMap{
		"exists": func(k string) bool { _, ok := m[k]; return ok }, "get": m.get, "gets": m.gets, "getv": m.getv, "getvs": m.getvs, "ls": m.ls, "lsdir": m.lsdir,
		"base": path.Base, "dir": path.Dir, "split": strings.Split, "join": strings.Join, "toUpper": strings.ToUpper, "toLower": strings.ToLower,
		"contains": strings.Contains, "replace": strings.Replace, "trimSuffix": strings.TrimSuffix, "parseBool": strconv.ParseBool, "atoi": strconv.Atoi,
		"json": func(s string) (v map[string]any, err error) { return v, json.Unmarshal([]byte(s), &v) }, "reverse": oracleReverse,
		"jsonArray":    func(s string) (v []any, err error) { err = json.Unmarshal([]byte(s), &v); return v, err },
		"base64Encode": func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
		"base64Decode": func(s string) (string, error) { b, err := base64.StdEncoding.DecodeString(s); return string(b), err },
		"add":          func(a, b int) int { return a + b }, "sub": func(a, b int) int { return a - b }, "mul": func(a, b int) int { return a * b },
		"div": func(a, b int) int { return a / b }, "mod": func(a, b int) int { return a % b },
		"seq": func(first, last int) (n []int) {
			for i := first; i <= last; i++ {
				n = append(n, i)
			}
			return n
		},
		"map": oracleMap, "sortByLength": func(v []string) []string {
			sort.SliceStable(v, func(i, j int) bool { return len(v[i]) < len(v[j]) })
			return v
		},
		"sortKVByLength": func(v []pair) []pair {
			sort.SliceStable(v, func(i, j int) bool { return len(v[i].Key) < len(v[j].Key) })
			return v
		},
		"getenv": func(name string, fallback ...string) string {
			if v := getenv[name]; v != "" || len(fallback) == 0 {
				return v
			}
			return fallback[0]
		},
	}).Parse(text)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	err = tmpl.Execute(&b, nil)
	return b.String(), err
}

type pair struct{ Key, Value string }

type pairs []pair // confd's reverse does not know this type

func oracleReverse(v any) any {
	if texts, ok := v.([]string); ok {
		slices.Reverse(texts)
	}
	return v
}

func oracleMap(values ...any) (map[string]any, error) {
	m := map[string]any{}
	for i := 0; i+1 < len(values); i += 2 {
		key, ok := values[i].(string)
		if !ok {
			return nil, fmt.Errorf("map key %v", values[i])
		}
		m[key] = values[i+1]
	}
	return m, nil
}

type memkv map[string]string

func (m memkv) get(key string) (pair, error) {
	v, ok := m[key]
	if !ok {
		return pair{}, fmt.Errorf("key does not exist: %s", key)
	}
	return pair{key, v}, nil
}

func (m memkv) getv(key string, fallback ...string) (string, error) {
	if v, ok := m[key]; ok {
		return v, nil
	}
	if len(fallback) > 0 {
		return fallback[0], nil
	}
	return "", fmt.Errorf("key does not exist: %s", key)
}

func (m memkv) gets(pattern string) (pairs, error) {
	found := pairs{}
	for k, v := range m {
		ok, err := path.Match(pattern, k)
		if err != nil {
			return nil, err
		}
		if ok {
			found = append(found, pair{k, v})
		}
	}
	sort.Slice(found, func(i, j int) bool { return found[i].Key < found[j].Key })
	return found, nil
}

func (m memkv) getvs(pattern string) ([]string, error) {
	all, err := m.gets(pattern)
	values := []string{}
	for _, kv := range all {
		values = append(values, kv.Value)
	}
	sort.Strings(values)
	return values, err
}

// terms is memkv's pathToTerms.
func terms(p string) []string { return strings.Split(path.Clean(p), "/") }

func samePrefix(prefix, of []string) bool {
	return len(prefix) <= len(of) && slices.Equal(prefix, of[:len(prefix)])
}

func (m memkv) ls(asked string) []string {
	found := map[string]bool{}
	for key := range m {
		if key == asked {
			found[path.Base(key)] = true
		} else if samePrefix(terms(asked), terms(path.Dir(key))) {
			found[strings.Split(strings.TrimPrefix(strings.TrimPrefix(key, asked), "/"), "/")[0]] = true
		}
	}
	return sortedNames(found)
}

func (m memkv) lsdir(asked string) []string {
	found, prefix := map[string]bool{}, terms(asked)
	for key := range m {
		if items := terms(path.Dir(key)); strings.HasPrefix(key, asked) && samePrefix(prefix, items) && len(items) > len(prefix) {
			found[items[len(prefix)]] = true
		}
	}
	return sortedNames(found)
}

func sortedNames(set map[string]bool) []string {
	names := []string{}
	for name := range set {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}
