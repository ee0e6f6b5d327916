package route

import (
	"strings"
	"unsafe"

	"github.com/tidwall/gjson"
)

// document is a payload while it is being matched. Its top-level fields are found once, on first use,
// and serve every filter of the match. Values further down are walked to when asked for.
//
// gjson's path language is deliberately not used: a field's name comes from a user and may hold any of
// its special characters.
type document struct {
	payload string
	state   documentState
	fields  []documentField
}

type documentState uint8

const (
	unread documentState = iota
	anObject
	notAnObject
)

type documentField struct {
	name  string
	value gjson.Result
}

// keptFields is how many fields' room a document keeps for the next payload.
const keptFields = 256

// open points the document at a payload. The payload's bytes are used in place, without a copy: they must
// not change before close.
func (d *document) open(payload []byte) {
	d.payload = unsafe.String(unsafe.SliceData(payload), len(payload))
	d.state = unread
}

// close lets go of the payload, so that nothing refers to its bytes any longer.
func (d *document) close() {
	clear(d.fields)
	d.fields = d.fields[:0]
	if cap(d.fields) > keptFields {
		d.fields = nil
	}
	d.payload, d.state = "", unread
}

// isObject reads the payload's top level, once.
func (d *document) isObject() bool {
	if d.state == unread {
		d.read()
	}
	return d.state == anObject
}

func (d *document) read() {
	d.state = notAnObject
	root := gjson.Parse(d.payload)
	if !root.IsObject() {
		return
	}
	d.state = anObject
	root.ForEach(func(name, value gjson.Result) bool {
		d.fields = append(d.fields, documentField{name.Str, value})
		return true
	})
}

// lookup finds the value that a path means. A top-level field of exactly the path's text wins over what
// the dotted path reaches.
func (d *document) lookup(p *path) (gjson.Result, bool) {
	if !d.isObject() {
		return gjson.Result{}, false
	}
	if value, ok := d.field(p.text); ok || len(p.elements) == 0 {
		return value, ok
	}
	value, ok := d.field(p.elements[0].name)
	for _, step := range p.elements[1:] {
		if !ok {
			break
		}
		value, ok = step.from(value)
	}
	return value, ok
}

func (d *document) field(name string) (gjson.Result, bool) {
	for i := range d.fields {
		if d.fields[i].name == name {
			return d.fields[i].value, true
		}
	}
	return gjson.Result{}, false
}

// path says where a value is: a field's name, or names and array indices joined by dots.
type path struct {
	text     string
	elements []element // nil when the text has no dot
}

type element struct {
	name  string
	index int // what the name means in an array; -1 when it is no index
}

// parsePath splits a path at its dots. Nothing is an escape character.
func parsePath(text string) path {
	names := strings.Split(text, ".")
	if len(names) == 1 {
		return path{text: text}
	}
	elements := make([]element, len(names))
	for i, name := range names {
		elements[i] = element{name: name, index: parseIndex(name)}
	}
	return path{text: text, elements: elements}
}

// parseIndex reads an array index: decimal digits without leading zeros, at most nine of them, since no
// payload has room for more elements.
func parseIndex(name string) int {
	if !isDigits(name) || len(name) > 9 || len(name) > 1 && name[0] == '0' {
		return -1
	}
	index := 0
	for _, digit := range []byte(name) {
		index = index*10 + int(digit-'0')
	}
	return index
}

// from takes one step down, into an object's field or an array's element.
func (e element) from(container gjson.Result) (found gjson.Result, ok bool) {
	switch {
	case container.IsObject():
		container.ForEach(func(name, value gjson.Result) bool {
			if name.Str == e.name {
				found, ok = value, true
			}
			return !ok
		})
	case container.IsArray() && e.index >= 0:
		i := 0
		container.ForEach(func(_, value gjson.Result) bool {
			if i == e.index {
				found, ok = value, true
			}
			i++
			return !ok
		})
	}
	return found, ok
}
