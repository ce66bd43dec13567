package render

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"text/template"
)

// confdFunctions returns the functions that have confd's names and confd's meaning. Where sprig has the same name with other
// arguments, and the arguments tell the two apart, both forms work.
func (t *Templates) confdFunctions() template.FuncMap {
	return template.FuncMap{
		"exists": t.exists, "get": t.get, "gets": t.gets, "getv": t.getv, "getvs": t.getvs, "ls": t.ls, "lsdir": t.lsdir,
		"getenv": t.getenv, "base": path.Base, "dir": path.Dir, "map": newMap,
		"json": decodeObject, "jsonArray": decodeArray, "parseBool": strconv.ParseBool, "atoi": strconv.Atoi,
		"toLower": strings.ToLower, "toUpper": strings.ToUpper, "contains": strings.Contains, "trimSuffix": strings.TrimSuffix,
		"split": strings.Split, "join": join, "replace": replace, "reverse": t.reverse, "sortByLength": sortByLength, "sortKVByLength": sortKVByLength,
		"base64Encode": func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }, "base64Decode": decodeBase64,
		"add": add, "sub": sub, "mul": mul, "div": div, "mod": mod, "seq": seq,
	}
}

func decodeObject(text string) (map[string]any, error) {
	var v map[string]any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return nil, fmt.Errorf("%s is not a JSON object: %s", shorten(text), err.Error())
	}
	return v, nil
}

func decodeArray(text string) ([]any, error) {
	var v []any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return nil, fmt.Errorf("%s is not a JSON array: %s", shorten(text), err.Error())
	}
	return v, nil
}

func decodeBase64(s string) (string, error) {
	b, err := base64.StdEncoding.DecodeString(s)
	return string(b), err
}

func newMap(values ...any) (map[string]any, error) {
	if len(values)%2 != 0 {
		return nil, errors.New("map: the arguments must alternate between keys and values")
	}
	m := make(map[string]any, len(values)/2)
	for i := 0; i < len(values); i += 2 {
		key, ok := values[i].(string)
		if !ok {
			return nil, fmt.Errorf("map: key %v is not text", values[i])
		}
		m[key] = values[i+1]
	}
	return m, nil
}

// join accepts confd's order of arguments (list, separator) and sprig's (separator, list).
func join(a, b any) (string, error) {
	sep, ok := b.(string)
	list := a
	if !ok {
		sep, ok = a.(string)
		list = b
	}
	v := reflect.ValueOf(list)
	if !ok || !v.IsValid() || v.Kind() != reflect.Slice && v.Kind() != reflect.Array {
		return "", errors.New("join: the arguments must be a list and a separator")
	}
	parts := make([]string, v.Len())
	for i := range parts {
		text, err := printable(v.Index(i).Interface())
		if err != nil {
			return "", fmt.Errorf("element %d: %s", i, err.Error())
		}
		parts[i] = text
	}
	return strings.Join(parts, sep), nil
}

// replace accepts confd's four arguments (text, old, new, count) and sprig's three (old, new, text).
func replace(args ...any) (string, error) {
	text := make([]string, min(len(args), 3))
	for i := range text {
		s, ok := args[i].(string)
		if !ok {
			return "", fmt.Errorf("replace: argument %d is not text", i+1)
		}
		text[i] = s
	}
	switch len(args) {
	case 3:
		return strings.ReplaceAll(text[2], text[0], text[1]), nil
	case 4:
		n, err := toInt(args[3])
		if err != nil {
			return "", errors.New("replace: the count is not a number")
		}
		return strings.Replace(text[0], text[1], text[2], n), nil
	}
	return "", errors.New("replace: the arguments must be text, old, new and a count (-1 for all), or old, new and text")
}

// reverse reverses a list of any type. confd's own reverses lists of text and leaves everything else as it is.
func (t *Templates) reverse(list any) (any, error) {
	v := reflect.ValueOf(list)
	if _, texts := list.([]string); t.confd != nil && !texts {
		return list, nil
	}
	if !v.IsValid() || v.Kind() != reflect.Slice {
		return nil, fmt.Errorf("reverse: the argument must be a list, not %T", list)
	}
	out := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
	for i := range v.Len() {
		out.Index(i).Set(v.Index(v.Len() - 1 - i))
	}
	return out.Interface(), nil
}

func sortByLength(list []string) []string {
	out := slices.Clone(list)
	slices.SortStableFunc(out, func(a, b string) int { return cmp.Compare(len(a), len(b)) })
	return out
}

func sortKVByLength(list []KVPair) []KVPair {
	out := slices.Clone(list)
	slices.SortStableFunc(out, func(a, b KVPair) int { return cmp.Compare(len(a.Key), len(b.Key)) })
	return out
}

// toInt returns v as an int. Text must be a whole number.
func toInt(v any) (int, error) {
	switch r := reflect.ValueOf(v); {
	case r.CanInt():
		return int(r.Int()), nil
	case r.CanUint():
		return int(r.Uint()), nil
	case r.CanFloat():
		return int(r.Float()), nil
	case r.Kind() == reflect.String:
		return strconv.Atoi(r.String())
	}
	return 0, fmt.Errorf("%v is not a number", v)
}

func numbers(args []any) ([]int, error) {
	out := make([]int, len(args))
	for i, a := range args {
		n, err := toInt(a)
		if err != nil {
			return nil, fmt.Errorf("%v is not a number", a)
		}
		out[i] = n
	}
	return out, nil
}

func fold(args []any, f func(a, b int) int) (int, error) {
	n, err := numbers(args)
	if err != nil || len(n) == 0 {
		return 0, cmp.Or(err, errors.New("no numbers"))
	}
	for _, b := range n[1:] {
		n[0] = f(n[0], b)
	}
	return n[0], nil
}

func add(args ...any) (int, error) { return fold(args, func(a, b int) int { return a + b }) }

func mul(args ...any) (int, error) { return fold(args, func(a, b int) int { return a * b }) }

func sub(a, b any) (int, error) { return fold([]any{a, b}, func(a, b int) int { return a - b }) }

func div(a, b any) (int, error) { return divide(a, b, func(a, b int) int { return a / b }) }

func mod(a, b any) (int, error) { return divide(a, b, func(a, b int) int { return a % b }) }

func divide(a, b any, f func(a, b int) int) (int, error) {
	n, err := numbers([]any{a, b})
	if err == nil && n[1] == 0 {
		err = errors.New("division by zero")
	}
	if err != nil {
		return 0, err
	}
	return f(n[0], n[1]), nil
}

// seq returns the numbers from first to last, as confd's seq does.
func seq(first, last any) ([]int, error) {
	n, err := numbers([]any{first, last})
	if err != nil {
		return nil, err
	}
	if n[1] < n[0] {
		return []int{}, nil
	}
	if uint64(n[1])-uint64(n[0]) >= maxList { // correct for any signs: the difference of two ints fits into uint64
		return nil, fmt.Errorf("seq: more than %d numbers", maxList)
	}
	out := make([]int, n[1]-n[0]+1)
	for i := range out {
		out[i] = n[0] + i
	}
	return out, nil
}

// sortedKeys is sprig's keys in a stable order.
func sortedKeys(dicts ...map[string]any) []string {
	var out []string
	for _, d := range dicts {
		out = append(out, slices.Sorted(maps.Keys(d))...)
	}
	return out
}

// sortedValues is sprig's values in the order of their keys.
func sortedValues(dict map[string]any) []any {
	out := make([]any, 0, len(dict))
	for _, k := range slices.Sorted(maps.Keys(dict)) {
		out = append(out, dict[k])
	}
	return out
}
