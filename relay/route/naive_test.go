package route_test

import (
	"bytes"
	"encoding/json"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"github.com/walhook/walhook/relay/delivery"
)

// This file judges filters and rules a second time, as plainly as possible and with nothing in common with
// the package: decoded JSON, big.Rat, no index.

func decode(text string) (any, error) {
	decoder := json.NewDecoder(bytes.NewReader([]byte(text)))
	decoder.UseNumber()
	var v any
	err := decoder.Decode(&v)
	return v, err
}

func naiveMatch(filter, payload any) bool {
	conditions := filter.(map[string]any)
	if len(conditions) == 0 {
		return true
	}
	object, ok := payload.(map[string]any)
	if !ok {
		return false
	}
	for key, want := range conditions {
		if !naiveCondition(key, want, object) {
			return false
		}
	}
	return true
}

func naiveCondition(key string, want any, payload map[string]any) bool {
	if operators, ok := want.(map[string]any); ok {
		value, found := naiveLookup(key, payload)
		for name, operand := range operators {
			if !naiveOperator(name, operand, value, found) {
				return false
			}
		}
		return true
	}
	if base := len(key) - len("_min"); base > 0 && key[base-1] != '.' {
		value, found := naiveLookup(key[:base], payload)
		switch key[base:] {
		case "_min":
			return naiveOperator("gte", want, value, found)
		case "_max":
			return naiveOperator("lte", want, value, found)
		}
	}
	value, found := naiveLookup(key, payload)
	if values, ok := want.([]any); ok {
		return naiveOperator("in", values, value, found)
	}
	return naiveOperator("eq", want, value, found)
}

func naiveLookup(key string, payload map[string]any) (any, bool) {
	if value, ok := payload[key]; ok {
		return value, true
	}
	var value any = payload
	for name := range strings.SplitSeq(key, ".") {
		switch container := value.(type) {
		case map[string]any:
			next, ok := container[name]
			if !ok {
				return nil, false
			}
			value = next
		case []any:
			i, err := strconv.ParseUint(name, 10, 31)
			if err != nil || strconv.FormatUint(i, 10) != name || i >= uint64(len(container)) {
				return nil, false
			}
			value = container[i]
		default:
			return nil, false
		}
	}
	return value, true
}

func naiveOperator(name string, operand, value any, found bool) bool {
	switch name {
	case "exists":
		return found == operand.(bool)
	case "ne":
		return !found || !naiveEqual(operand, value)
	}
	if !found {
		return false
	}
	switch name {
	case "eq":
		return naiveEqual(operand, value)
	case "in":
		return slices.ContainsFunc(operand.([]any), func(o any) bool { return naiveEqual(o, value) })
	case "prefix":
		s, ok := value.(string)
		return ok && strings.HasPrefix(s, operand.(string))
	}
	order, ok := naiveOrder(value, operand)
	return ok && map[string]bool{"gt": order > 0, "gte": order >= 0, "lt": order < 0, "lte": order <= 0}[name]
}

func naiveEqual(a, b any) bool {
	switch a := a.(type) {
	case string, json.Number:
		order, ok := naiveOrder(a, b)
		return ok && order == 0
	case bool:
		b, ok := b.(bool)
		return ok && a == b
	}
	return a == nil && b == nil
}

func naiveOrder(a, b any) (int, bool) {
	switch a := a.(type) {
	case string:
		b, ok := b.(string)
		return slices.Compare([]rune(a), []rune(b)), ok
	case json.Number:
		b, ok := b.(json.Number)
		if !ok {
			return 0, false
		}
		return rat(a).Cmp(rat(b)), true
	}
	return 0, false
}

func rat(n json.Number) *big.Rat {
	r, ok := new(big.Rat).SetString(string(n))
	if !ok {
		panic("not a number: " + string(n))
	}
	return r
}

// naiveRule judges a whole rule.
func naiveRule(r delivery.Rule, e *delivery.Event) bool {
	if !r.Active || r.Tenant != e.Tenant || !naiveType(r.EventTypes, e.Type) {
		return false
	}
	filter, err := decode(string(r.Filters))
	if err != nil {
		panic(err)
	}
	payload, err := decode(string(e.Payload))
	if err != nil {
		panic(err)
	}
	return naiveMatch(filter, payload)
}

// naiveType: the relay's own events are for those alone who name them.
func naiveType(patterns []string, eventType string) bool {
	own := strings.HasPrefix(eventType, "walhook.")
	return len(patterns) == 0 && !own || slices.ContainsFunc(patterns, func(p string) bool {
		prefix, starred := strings.CutSuffix(p, "*")
		return p == eventType || starred && strings.HasPrefix(eventType, prefix) && (prefix != "" || !own)
	})
}
