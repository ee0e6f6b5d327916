package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// secretFields are those whose values are never repeated, whatever is wrong with them.
var secretFields = []string{"secret", "new_secret", "headers", "event_data", "test_data"}

// decode reads a body into a struct. Names are taken literally, unknown ones are refused, and so is null where a field is no
// Nullable. ignored are members that are accepted and mean nothing.
func decode(text []byte, into any, ignored ...string) *problem {
	if text = trim(text); text[0] != '{' {
		return wrong(http.StatusUnprocessableEntity, "body", "must be a JSON object")
	}
	fields := fieldsOf(into)
	seen := map[string]bool{}
	for _, m := range members(text) {
		location := "body." + short(m.name)
		if seen[m.name] {
			return wrong(http.StatusUnprocessableEntity, location, "is there twice: remove one")
		}
		seen[m.name] = true
		if slices.Contains(ignored, m.name) {
			continue
		}
		field, known := fields[m.name]
		if !known {
			return unknown(m.name, location)
		}
		if p := decodeField(m, field, location); p != nil {
			return p
		}
	}
	return nil
}

// unknown refuses a member. Its value is not repeated: it may be a secret under a name that was mistyped.
func unknown(name, location string) *problem {
	if slices.Contains(readOnly, name) {
		return wrong(http.StatusUnprocessableEntity, location, "cannot be set: leave it out")
	}
	return wrong(http.StatusUnprocessableEntity, location, "is unknown: openapi.json lists the names")
}

func decodeField(m member, field reflect.Value, location string) *problem {
	if raw, ok := field.Addr().Interface().(*json.RawMessage); ok {
		*raw = m.value // it may be large, and it is never changed
		return nil
	}
	if string(m.value) == "null" && !takesNull(field) {
		return wrong(http.StatusUnprocessableEntity, location, "must be %s, not null: leave it out instead", expected(field.Type()))
	}
	if json.Unmarshal(m.value, field.Addr().Interface()) == nil {
		return nil
	}
	p := wrong(http.StatusUnprocessableEntity, location, "must be %s", expected(field.Type()))
	if slices.Contains(secretFields, m.name) || m.value[0] == '{' || m.value[0] == '[' {
		return p
	}
	return p.with(string(m.value))
}

// fieldsOf maps names to the fields of the struct that a pointer points to.
func fieldsOf(into any) map[string]reflect.Value {
	v := reflect.ValueOf(into).Elem()
	fields := map[string]reflect.Value{}
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		fields[name] = v.Field(i)
	}
	return fields
}

// Nullable is a field for which null says something else than absence.
type Nullable[T any] struct {
	Given bool
	Value *T // nil: null
}

// UnmarshalJSON notes that it is given.
func (n *Nullable[T]) UnmarshalJSON(text []byte) error {
	n.Given = true
	return json.Unmarshal(text, &n.Value)
}

// Schema is T's, or null.
func (n *Nullable[T]) Schema(r huma.Registry) *huma.Schema {
	s := huma.SchemaFromType(r, reflect.TypeFor[T]())
	s.Nullable = true
	return s
}

func (n *Nullable[T]) of() reflect.Type { return reflect.TypeFor[T]() }

func takesNull(field reflect.Value) bool {
	_, nullable := field.Addr().Interface().(interface{ of() reflect.Type })
	return nullable
}

// Strings is an array of strings; null is none.
type Strings []string

// UnmarshalJSON refuses null among them.
func (s *Strings) UnmarshalJSON(text []byte) error {
	var all []*string
	if err := json.Unmarshal(text, &all); err != nil {
		return err
	}
	*s = make(Strings, len(all))
	for i, one := range all {
		if one == nil {
			return errNotString
		}
		(*s)[i] = *one
	}
	return nil
}

// StringMap is an object of strings.
type StringMap map[string]string

// UnmarshalJSON refuses null among its values.
func (m *StringMap) UnmarshalJSON(text []byte) error {
	var all map[string]*string
	if err := json.Unmarshal(text, &all); err != nil {
		return err
	}
	*m = make(StringMap, len(all))
	for name, value := range all {
		if value == nil {
			return errNotString
		}
		(*m)[name] = *value
	}
	return nil
}

var errNotString = errors.New("null is no string")

// expected says what a field takes.
func expected(t reflect.Type) string {
	if n, ok := reflect.New(t).Interface().(interface{ of() reflect.Type }); ok {
		return expected(n.of()) + " or null"
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == reflect.TypeFor[time.Time]():
		return "a time as in 2026-01-31T12:00:00Z (RFC 3339)"
	case t == reflect.TypeFor[Strings]():
		return "an array of strings"
	case t == reflect.TypeFor[StringMap]():
		return "an object whose values are strings"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "a whole number"
	case reflect.Float64:
		return "a number"
	case reflect.String:
		return "a string"
	default:
		return "JSON"
	}
}
