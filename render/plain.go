package render

import "fmt"

// noValue is what text/template prints for a field that is missing in JSON.
const noValue = "<no value>"

// confdText is how confd prints what is no single value: a pair as {key value}, a list as [a b], a missing field as <no value>.
// It is not offered for anything else, whose text would be memory addresses.
func confdText(value any) (text string, ok bool) {
	if value == nil {
		return noValue, true
	}
	return fmt.Sprint(value), isPlain(value)
}

func isPlain(value any) bool {
	switch v := value.(type) {
	case nil, string, bool, int, int64, float64, KVPair, []KVPair, []string, []int, map[string]string:
		return true
	case []any:
		for _, one := range v {
			if !isPlain(one) {
				return false
			}
		}
		return true
	case map[string]any:
		for _, one := range v {
			if !isPlain(one) {
				return false
			}
		}
		return true
	}
	return false
}
