package truth

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/big"
	"strings"

	"github.com/walhook/walhook/test/checker/history"
)

// Matches reports whether an event is for a subscription. It follows the contract's text as literally as it can and
// starts from nothing every time. A filter that is not valid makes the subscription match nothing.
func Matches(s *history.Subscription, e *history.Event) bool {
	return s.Active && s.Tenant == e.Tenant && matchesType(s.EventTypes, e.Type) && matchesFilters(s.Filters, e.Payload)
}

// matchesType: the relay's own events are for those alone who name them.
func matchesType(patterns []string, name string) bool {
	own := strings.HasPrefix(name, "walhook.")
	for _, pattern := range patterns {
		prefix, isPrefix := strings.CutSuffix(pattern, ".*")
		if pattern == name || pattern == "*" && !own || isPrefix && strings.HasPrefix(name, prefix+".") {
			return true
		}
	}
	return len(patterns) == 0 && !own
}

// matchesFilters looks at every filter, also after one that does not hold: another may be invalid.
func matchesFilters(filters, payload json.RawMessage) bool {
	conditions, ok := decode(filters).(map[string]any)
	if !ok {
		return false
	}
	if len(conditions) == 0 {
		return true
	}
	event := decode(payload)
	all := true
	for path, want := range conditions {
		holds, err := condition(path, want, event)
		if err != nil {
			return false
		}
		all = all && holds
	}
	return all
}

// decode returns JSON with its numbers as they are written, and nothing for what is not JSON.
func decode(text json.RawMessage) any {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var v any
	if decoder.Decode(&v) != nil {
		return nil
	}
	return v
}

var errFilter = errors.New("invalid filter")

// condition reports whether one filter holds. Its operand says what it is: an object of operators, and else a bound
// for a path that ends in _min or _max, a list of which any may be equal, or a value.
func condition(path string, want, event any) (bool, error) {
	if operators, ok := want.(map[string]any); ok {
		return operate(operators, at(event, path))
	}
	if field, ok := strings.CutSuffix(path, "_min"); ok {
		return bound("gte", want, at(event, field))
	}
	if field, ok := strings.CutSuffix(path, "_max"); ok {
		return bound("lte", want, at(event, field))
	}
	if _, ok := want.([]any); ok {
		return operator("in", want, at(event, path))
	}
	return operator("eq", want, at(event, path))
}

// bound compares numbers only.
func bound(operator string, want any, f field) (bool, error) {
	if number(want) == nil {
		return false, errFilter
	}
	return compare(operator, want, f)
}

// field is what a path leads to in a payload; a field may be there and null.
type field struct {
	exists bool
	value  any
}

func at(event any, path string) field {
	for name := range strings.SplitSeq(path, ".") {
		object, ok := event.(map[string]any)
		if !ok {
			return field{}
		}
		if event, ok = object[name]; !ok {
			return field{}
		}
	}
	return field{exists: true, value: event}
}

func operate(operators map[string]any, f field) (bool, error) {
	all := true
	for name, operand := range operators {
		holds, err := operator(name, operand, f)
		if err != nil {
			return false, err
		}
		all = all && holds
	}
	return all, nil
}

func operator(name string, operand any, f field) (bool, error) {
	switch name {
	case "eq", "ne":
		same, err := equal(operand, f)
		return same == (name == "eq"), err
	case "in":
		return anyEqual(operand, f)
	case "gt", "gte", "lt", "lte":
		return compare(name, operand, f)
	case "exists":
		wanted, ok := operand.(bool)
		if !ok {
			return false, errFilter
		}
		return f.exists == wanted, nil
	case "prefix":
		prefix, ok := operand.(string)
		if !ok {
			return false, errFilter
		}
		text, ok := f.value.(string)
		return ok && strings.HasPrefix(text, prefix), nil
	}
	return false, errFilter
}

// equal compares with a string, a number, a boolean or null. Numbers are equal by value: 1 is 1.0.
func equal(operand any, f field) (bool, error) {
	switch operand.(type) {
	case json.Number:
		a, b := number(operand), number(f.value)
		return b != nil && a.Cmp(b) == 0, nil
	case string, bool, nil:
		return f.exists && operand == f.value, nil
	}
	return false, errFilter
}

func anyEqual(operand any, f field) (bool, error) {
	list, ok := operand.([]any)
	if !ok {
		return false, errFilter
	}
	found := false
	for _, one := range list {
		same, err := equal(one, f)
		if err != nil {
			return false, err
		}
		found = found || same
	}
	return found, nil
}

func compare(name string, operand any, f field) (bool, error) {
	order := 0
	switch bound := operand.(type) {
	case json.Number:
		n := number(f.value)
		if n == nil {
			return false, nil
		}
		order = n.Cmp(number(bound))
	case string:
		text, ok := f.value.(string)
		if !ok {
			return false, nil
		}
		order = strings.Compare(text, bound)
	default:
		return false, errFilter
	}
	switch name {
	case "gt":
		return order > 0, nil
	case "gte":
		return order >= 0, nil
	case "lt":
		return order < 0, nil
	}
	return order <= 0, nil
}

// number returns the exact value of a JSON number and nil for anything else.
func number(v any) *big.Rat {
	text, ok := v.(json.Number)
	if !ok {
		return nil
	}
	n, ok := new(big.Rat).SetString(string(text))
	if !ok {
		return nil
	}
	return n
}
