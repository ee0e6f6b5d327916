package route

import (
	"cmp"
	"slices"
	"strings"

	"github.com/tidwall/gjson"
)

// Filter is a compiled filter. It is immutable and safe for concurrent use.
type Filter struct {
	conditions []condition
}

// condition is one test of one payload value.
type condition struct {
	path     path
	operator operator
	operands []scalar // sorted and without duplicates; one unless the operator is oneOf, none for present and absent
}

type operator uint8

const (
	oneOf operator = iota // eq, in
	notEqual
	greater
	greaterOrEqual
	less
	lessOrEqual
	startsWith
	present
	absent
)

// Match reports whether the payload meets every condition. The payload is JSON text as jsonb writes it:
// valid, no object with the same key twice. A filter without conditions matches any payload; one with
// conditions matches no payload that is not an object, whatever its operators.
func (f *Filter) Match(payload []byte) bool {
	var d document
	d.open(payload)
	return f.matches(&d)
}

func (f *Filter) matches(d *document) bool {
	if len(f.conditions) == 0 {
		return true
	}
	if !d.isObject() {
		return false
	}
	for i := range f.conditions {
		if !f.conditions[i].holds(d) {
			return false
		}
	}
	return true
}

// holds judges one condition. A field that is not there meets only notEqual and absent; an explicit null
// is there.
func (c *condition) holds(d *document) bool {
	value, found := d.lookup(&c.path)
	switch c.operator {
	case present:
		return found
	case absent:
		return !found
	case notEqual:
		return !found || !c.equalsAny(value)
	case oneOf:
		return found && c.equalsAny(value)
	case startsWith:
		return found && value.Type == gjson.String && strings.HasPrefix(value.Str, c.operands[0].text)
	}
	return found && c.ordered(value)
}

// equalsAny reports whether the value is one of the operands. Objects and arrays equal nothing.
func (c *condition) equalsAny(value gjson.Result) bool {
	v, ok := scalarOf(value)
	if !ok {
		return false
	}
	_, found := slices.BinarySearchFunc(c.operands, v, scalar.compare)
	return found
}

// ordered judges gt, gte, lt and lte. Only a number compares with a number and a string with a string.
func (c *condition) ordered(value gjson.Result) bool {
	operand := c.operands[0]
	if value.Type != operand.kind {
		return false
	}
	v, ok := scalarOf(value)
	if !ok {
		return false
	}
	order := v.compare(operand)
	switch c.operator {
	case greater:
		return order > 0
	case greaterOrEqual:
		return order >= 0
	case less:
		return order < 0
	}
	return order <= 0
}

// scalar is a JSON value that is neither object nor array.
type scalar struct {
	kind gjson.Type
	text string  // what a string says; how a number was written
	near float64 // the float64 nearest to a number, an infinity beyond them
}

// scalarOf reads a value of a payload. It reports false for objects and arrays.
func scalarOf(value gjson.Result) (scalar, bool) {
	switch value.Type {
	case gjson.JSON:
		return scalar{}, false
	case gjson.Number:
		return scalar{kind: gjson.Number, text: value.Raw, near: value.Num}, true
	case gjson.String:
		return scalar{kind: gjson.String, text: value.Str}, true
	}
	return scalar{kind: value.Type}, true
}

// compare is a total order: by kind, then numbers by value and strings by code points, which is the order
// of their UTF-8 bytes.
func (s scalar) compare(o scalar) int {
	switch {
	case s.kind != o.kind:
		return cmp.Compare(s.kind, o.kind)
	case s.kind == gjson.Number:
		return s.compareNumber(o)
	}
	return strings.Compare(s.text, o.text)
}

// compareNumber is exact. Rounding to the nearest float64 never turns an order around, so that only
// numbers with the same one need a look at their digits.
func (s scalar) compareNumber(o scalar) int {
	if order := cmp.Compare(s.near, o.near); order != 0 || s.text == o.text {
		return order
	}
	// Neither fails on JSON: Compile saw to the operand and jsonb to the payload.
	a, _ := parseDecimal(s.text)
	b, _ := parseDecimal(o.text)
	return a.compare(b)
}
