package config

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"
)

// prefix begins the name of every environment variable.
const prefix = "WALHOOK_"

// Key describes one setting.
type Key struct {
	Name    string // in walhook.yaml, groups dotted: "retention.events"
	Env     string // "WALHOOK_RETENTION_EVENTS"
	Flag    string // without dashes in front: "retention-events"
	Type    string // "duration", "size", "number", "bool", "list" or "text"
	Default string // as it is written; empty for none
	Limits  string // "1h to 36500d", "auto, json or console"; empty for none
	Help    string // one line

	field  []int // index path in Config
	tag    reflect.StructTag
	secret bool // never printed
}

// keys is what the tags of Config say.
var keys = readKeys(reflect.TypeFor[Config](), "", nil)

// Keys returns every setting, in the order of Config.
func Keys() []Key { return append([]Key(nil), keys...) }

// readKeys walks the struct's fields; groups are structs.
func readKeys(group reflect.Type, path string, index []int) []Key {
	var found []Key
	for f := range group.Fields() {
		name, at := path+f.Tag.Get("yaml"), append(append([]int(nil), index...), f.Index...)
		if f.Type.Kind() == reflect.Struct {
			found = append(found, readKeys(f.Type, name+".", at)...)
			continue
		}
		defaults := Default()
		found = append(found, Key{
			Name:    name,
			Env:     prefix + strings.ToUpper(strings.ReplaceAll(name, ".", "_")),
			Flag:    strings.NewReplacer(".", "-", "_", "-").Replace(name),
			Type:    typeName(f.Type),
			Default: format(reflect.ValueOf(defaults).FieldByIndex(at)),
			Limits:  limits(f.Tag),
			Help:    f.Tag.Get("help"),
			field:   at, tag: f.Tag, secret: f.Type == reflect.TypeFor[Secret](),
		})
	}
	return found
}

// typeName is a type's name for people.
func typeName(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return "duration"
	case reflect.TypeFor[Bytes]():
		return "size"
	case reflect.TypeFor[int]():
		return "number"
	case reflect.TypeFor[bool]():
		return "bool"
	case reflect.TypeFor[List]():
		return "list"
	}
	return "text"
}

// limits words what the tags allow.
func limits(tag reflect.StructTag) string {
	if choices := strings.Fields(tag.Get("oneof")); len(choices) > 0 {
		last := len(choices) - 1
		return strings.Join(choices[:last], ", ") + " or " + choices[last]
	}
	if least, has := tag.Lookup("min"); has {
		return least + " to " + tag.Get("max")
	}
	return tag.Get("form")
}

// format writes a field's value as Set reads it; secrets lose their passwords.
func format(v reflect.Value) string {
	if d, ok := v.Interface().(time.Duration); ok {
		return formatDuration(d)
	}
	return fmt.Sprint(v.Interface())
}

// find returns the key of that name.
func find(name string) (Key, bool) {
	for _, k := range keys {
		if k.Name == name {
			return k, true
		}
	}
	return Key{}, false
}

// parsers read the types that the env package doesn't know or doesn't explain well.
var parsers = map[reflect.Type]env.ParserFunc{
	reflect.TypeFor[time.Duration](): func(s string) (any, error) { return ParseDuration(s) },
	reflect.TypeFor[Bytes]():         func(s string) (any, error) { return ParseBytes(s) },
	reflect.TypeFor[int]():           func(s string) (any, error) { return parseInt(s) },
	reflect.TypeFor[bool]():          func(s string) (any, error) { return parseBool(s) },
	reflect.TypeFor[List]():          func(s string) (any, error) { return parseList(s) },
}

// Set changes one setting, named as in Key.Name, to a value written as in walhook.yaml. An unknown key and
// a value that cannot be read are errors; limits are Validate's concern. File, environment and flags all
// end here.
func (c *Config) Set(name, value string) error {
	k, ok := find(name)
	if !ok {
		return fmt.Errorf("%s: unknown key: %s", name, suggest(name, keyNames(), "remove it"))
	}
	if value == "" {
		return fmt.Errorf("%s: the value is empty: give one or leave the key out", name)
	}
	err := env.ParseWithOptions(c, env.Options{
		Prefix: prefix, Environment: map[string]string{k.Env: value}, FuncMap: parsers,
	})
	var wrong env.ParseError
	if errors.As(err, &wrong) {
		return fmt.Errorf("%s: %w", name, wrong.Err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// Get returns a setting as it would be written in walhook.yaml, without passwords; false for an unknown key.
func (c Config) Get(name string) (string, bool) {
	k, ok := find(name)
	if !ok {
		return "", false
	}
	return format(reflect.ValueOf(c).FieldByIndex(k.field)), true
}
