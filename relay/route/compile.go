package route

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/tidwall/gjson"
)

// What a filter may be at most. Within these limits, matching costs at most a walk of the payload for each
// condition.
const (
	maxFilterSize = 64 << 10 // bytes of filter text
	maxConditions = 64       // every operator of an operator object counts as one
	maxKeySize    = 1 << 10  // bytes
	maxPathDepth  = 32       // names and indices in a dotted path
	maxMagnitude  = 1 << 20  // of a number's exponent; Postgres's own numbers end at 131072 digits
)

// operatorNames lists what an operator object may hold, for error messages.
const operatorNames = "eq, ne, in, gt, gte, lt, lte, exists, prefix"

// Compile reads a filter: JSON object text in which every member is a condition and all must hold. No text
// at all is the empty filter. The error of a filter that does not compile names the key at fault and says
// what to write instead.
//
// A key is the name of a top-level payload field or a dotted path (patient.age, items.0.sku). If the
// payload has a top-level field whose name is the whole key, dots included, that field is meant.
//
//   - A string, number, boolean or null means equality. Numbers compare by exact value (1, 1.0 and 1e0 are
//     equal, 2^53 and 2^53+1 are not); null equals an explicit null, not a missing field. Objects and
//     arrays in the payload equal nothing.
//   - An array of those means any of them.
//   - A number under a key that ends in _min or _max bounds the field without the suffix, bounds included.
//     A key that has nothing before the suffix is an ordinary one.
//   - An object holds operators, all of which must hold: eq, ne (also true for a missing field), in (an
//     array), gt, gte, lt, lte (numbers with numbers; strings with strings, by code points), exists (true
//     or false; an explicit null exists), prefix (of a string). Its key is never taken for a bound.
func Compile(filters []byte) (*Filter, error) {
	if len(bytes.TrimSpace(filters)) == 0 {
		return &Filter{}, nil
	}
	if err := checkText(filters); err != nil {
		return nil, err
	}
	members, err := parseMembers(filters)
	if err != nil {
		return nil, fmt.Errorf("filters: %w", err)
	}
	f := &Filter{}
	for _, m := range members {
		conditions, err := compileMember(m)
		if err != nil {
			return nil, fmt.Errorf("filter %s: %w", quote(m.key), err)
		}
		if f.conditions = append(f.conditions, conditions...); len(f.conditions) > maxConditions {
			return nil, fmt.Errorf("filter %s: more than %d conditions in one subscription; use several subscriptions",
				quote(m.key), maxConditions)
		}
	}
	f.conditions = slices.Clip(f.conditions)
	return f, nil
}

// checkText refuses what is too long or no JSON object before anything is made of it.
func checkText(filters []byte) error {
	if len(filters) > maxFilterSize {
		return fmt.Errorf("filters: %d bytes of text, at most %d are allowed", len(filters), maxFilterSize)
	}
	if !utf8.Valid(filters) {
		return errors.New("filters: the text is not valid UTF-8")
	}
	var text json.RawMessage
	if err := json.Unmarshal(filters, &text); err != nil {
		return fmt.Errorf("filters: %s is not valid JSON: %w", shorten(string(filters)), err)
	}
	if bytes.TrimSpace(filters)[0] != '{' {
		return fmt.Errorf("filters: %s is not a JSON object; write conditions as {\"field\": value}", shorten(string(filters)))
	}
	return nil
}

type member struct {
	key   string
	value json.RawMessage
}

// parseMembers takes a valid JSON object apart and refuses a key that is there twice: only one of the two
// could be honored.
func parseMembers(object []byte) ([]member, error) {
	decoder := json.NewDecoder(bytes.NewReader(object))
	if _, err := decoder.Token(); err != nil {
		return nil, err
	}
	var members []member
	seen := map[string]bool{}
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return nil, err
		}
		key, _ := token.(string)
		if seen[key] {
			return nil, fmt.Errorf("the key %s is there twice; write both tests as one operator object, as {\"gt\": 1, \"ne\": 5}", quote(key))
		}
		seen[key] = true
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return nil, err
		}
		members = append(members, member{key, value})
	}
	return members, nil
}

// compileMember makes the conditions of one key.
func compileMember(m member) ([]condition, error) {
	if len(m.key) > maxKeySize {
		return nil, fmt.Errorf("the key is %d bytes long, at most %d are allowed", len(m.key), maxKeySize)
	}
	if m.value[0] == '{' {
		return compileOperators(m)
	}
	if field, op, ok := cutBound(m.key); ok {
		return compileBound(field, op, m)
	}
	where, err := compilePath(m.key)
	if err != nil {
		return nil, err
	}
	operands, err := parseOperands(m.value)
	if err != nil {
		return nil, err
	}
	return []condition{{where, oneOf, operands}}, nil
}

// cutBound splits a key that ends in _min or _max, unless its last name is nothing but the suffix.
func cutBound(key string) (field string, op operator, ok bool) {
	op = greaterOrEqual
	if field, ok = strings.CutSuffix(key, "_min"); !ok {
		op = lessOrEqual
		field, ok = strings.CutSuffix(key, "_max")
	}
	return field, op, ok && field != "" && !strings.HasSuffix(field, ".")
}

func compileBound(field string, op operator, m member) ([]condition, error) {
	where, err := compilePath(field)
	if err != nil {
		return nil, err
	}
	bound, err := parseScalar(m.value)
	if err != nil || bound.kind != gjson.Number {
		return nil, fmt.Errorf("the bound must be a number, not %s; if the payload has a field of that name, write {%s: {\"eq\": …}}",
			shorten(string(m.value)), quote(m.key))
	}
	return []condition{{where, op, []scalar{bound}}}, nil
}

func compilePath(text string) (path, error) {
	if depth := strings.Count(text, ".") + 1; depth > maxPathDepth {
		return path{}, fmt.Errorf("the path is %d levels deep, at most %d are allowed", depth, maxPathDepth)
	}
	return parsePath(text), nil
}

func compileOperators(m member) ([]condition, error) {
	where, err := compilePath(m.key)
	if err != nil {
		return nil, err
	}
	operators, err := parseMembers(m.value)
	if err != nil {
		return nil, err
	}
	if len(operators) == 0 {
		return nil, fmt.Errorf("the operator object is empty; give it one of %s", operatorNames)
	}
	conditions := make([]condition, len(operators))
	for i, o := range operators {
		c, err := compileOperator(o)
		if err != nil {
			return nil, err
		}
		c.path = where
		conditions[i] = c
	}
	return conditions, nil
}

// compileOperator makes a condition that lacks only its path.
func compileOperator(o member) (condition, error) {
	switch o.key {
	case "eq":
		return oneScalar(o, oneOf, "a string, number, boolean or null; for any of several values use \"in\"", isAnyKind)
	case "ne":
		return oneScalar(o, notEqual, "a string, number, boolean or null", isAnyKind)
	case "gt":
		return oneScalar(o, greater, "a number or a string", isOrdered)
	case "gte":
		return oneScalar(o, greaterOrEqual, "a number or a string", isOrdered)
	case "lt":
		return oneScalar(o, less, "a number or a string", isOrdered)
	case "lte":
		return oneScalar(o, lessOrEqual, "a number or a string", isOrdered)
	case "prefix":
		return oneScalar(o, startsWith, "a string", isString)
	case "exists":
		return compileExists(o)
	case "in":
		return compileIn(o)
	}
	return condition{}, fmt.Errorf("unknown operator %s (known: %s)", quote(o.key), operatorNames)
}

func oneScalar(o member, op operator, want string, allowed func(gjson.Type) bool) (condition, error) {
	operand, err := parseScalar(o.value)
	if errors.Is(err, errNotScalar) || err == nil && !allowed(operand.kind) {
		return condition{}, fmt.Errorf("%s takes %s, not %s", o.key, want, shorten(string(o.value)))
	}
	return condition{operator: op, operands: []scalar{operand}}, err
}

func isAnyKind(gjson.Type) bool      { return true }
func isString(kind gjson.Type) bool  { return kind == gjson.String }
func isOrdered(kind gjson.Type) bool { return kind == gjson.Number || kind == gjson.String }

func compileExists(o member) (condition, error) {
	switch string(o.value) {
	case "true":
		return condition{operator: present}, nil
	case "false":
		return condition{operator: absent}, nil
	}
	return condition{}, fmt.Errorf("exists takes true or false, not %s", shorten(string(o.value)))
}

func compileIn(o member) (condition, error) {
	if o.value[0] != '[' {
		return condition{}, fmt.Errorf("in takes an array, not %s", shorten(string(o.value)))
	}
	operands, err := parseOperands(o.value)
	return condition{operator: oneOf, operands: operands}, err
}

// parseOperands reads one value or an array of them.
func parseOperands(value json.RawMessage) ([]scalar, error) {
	if value[0] != '[' {
		operand, err := parseScalar(value)
		return []scalar{operand}, err
	}
	var elements []json.RawMessage
	if err := json.Unmarshal(value, &elements); err != nil {
		return nil, err
	}
	if len(elements) == 0 {
		return nil, errors.New("an empty array would never match; name at least one value, or leave the key out")
	}
	operands := make([]scalar, len(elements))
	for i, text := range elements {
		operand, err := parseScalar(text)
		if err != nil {
			return nil, err
		}
		operands[i] = operand
	}
	slices.SortFunc(operands, scalar.compare)
	same := func(a, b scalar) bool { return a.compare(b) == 0 }
	return slices.Clip(slices.CompactFunc(operands, same)), nil
}

var errNotScalar = errors.New("only strings, numbers, booleans and null can be compared")

// parseScalar reads valid JSON text that should be neither object nor array.
func parseScalar(text json.RawMessage) (scalar, error) {
	switch text[0] {
	case '{', '[':
		return scalar{}, fmt.Errorf("%w, not %s; reach inside with a dotted path", errNotScalar, shorten(string(text)))
	case '"':
		var s string
		err := json.Unmarshal(text, &s)
		return scalar{kind: gjson.String, text: s}, err
	case 't':
		return scalar{kind: gjson.True}, nil
	case 'f':
		return scalar{kind: gjson.False}, nil
	case 'n':
		return scalar{kind: gjson.Null}, nil
	}
	return parseNumber(string(text))
}

func parseNumber(text string) (scalar, error) {
	number, ok := parseDecimal(text)
	if !ok {
		return scalar{}, fmt.Errorf("%s is not a number", shorten(text))
	}
	if number.exponent > maxMagnitude || number.exponent < -maxMagnitude {
		return scalar{}, fmt.Errorf("the number %s is out of range: at most %d digits either side of the point", shorten(text), maxMagnitude)
	}
	// ParseFloat's only error here is a number beyond float64, for which it returns an infinity, and so
	// does gjson for the payload's.
	near, _ := strconv.ParseFloat(text, 64)
	return scalar{kind: gjson.Number, text: text, near: near}, nil
}

// quote makes a key fit for a message: in quotes, without control characters, not too long.
func quote(key string) string { return strconv.Quote(shorten(key)) }

// shorten keeps the beginning of what may be long, cut between two characters.
func shorten(text string) string {
	const most = 60
	if len(text) <= most {
		return text
	}
	end := most
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "…"
}
