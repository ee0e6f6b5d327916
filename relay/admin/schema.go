package admin

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/walhook/walhook/outbox"
)

const (
	// schemaURL is what references in a schema start from. Nothing is there: only what the schema has itself is found.
	schemaURL = "walhook://event-type/schema"

	maxSchema      = 1 << 20 // bytes, as in the table
	maxSchemaParts = 5000    // objects, arrays and booleans: compiling takes the square of it
	maxSchemaDepth = 100
	maxSchemas     = 64 // compiled and kept

	// What checking one event may take. A step is a value looked at by a part of the schema, and may leave a finding, which
	// takes memory: some for itself, and more for the path to where it is.
	findingsMemory   = 256 << 20
	findingBytes     = 256
	findingPathBytes = 16
	heavyPayload     = 64 << 10 // of larger ones, one at a time is checked
)

// errTooMuch is what the check of an event ends with that would take too much time or memory.
var errTooMuch = errors.New("checking it takes too much: make event_data smaller or flatter, or the schema simpler")

// schemas keeps compiled schemas by their text, the most recently compiled ones.
type schemas struct {
	mu     sync.Mutex
	byText *recent[[sha256.Size]byte, *schema]
	heavy  sync.Mutex
}

// schema is a compiled one. It checks one value at a time, since the steps are counted in it.
type schema struct {
	mu       sync.Mutex
	compiled *jsonschema.Schema
	left     int // steps
	each     int // what one costs
}

// get returns the compiled schema of a text.
func (s *schemas) get(text string) (*schema, error) {
	key := sha256.Sum256([]byte(text))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byText == nil {
		s.byText = newRecent[[sha256.Size]byte, *schema](maxSchemas)
	}
	if known, found := s.byText.get(key); found {
		return known, nil
	}
	made, err := compileSchema([]byte(text))
	if err != nil {
		return nil, err
	}
	s.byText.put(key, made)
	return made, nil
}

// check returns what a schema finds wrong with a payload: nothing, or a few sentences. An error means that it could not be
// checked. The payload is one that outbox.Event.Validate has approved: its numbers have a bounded number of digits.
func (s *schemas) check(text string, payload []byte) ([]string, error) {
	made, err := s.get(text)
	if err != nil {
		return nil, err
	}
	if len(payload) > heavyPayload {
		s.heavy.Lock()
		defer s.heavy.Unlock()
	}
	return made.check(payload)
}

// noLoader refuses to load: neither files nor URLs are read on a schema's word.
type noLoader struct{}

func (noLoader) Load(url string) (any, error) {
	return nil, fmt.Errorf("%.200q lies outside the schema: copy what it refers to into its $defs", url)
}

// compileSchema compiles the text of a schema, or says which of its keywords is wrong.
func compileSchema(text []byte) (_ *schema, err error) {
	defer func() {
		if r := recover(); r != nil { // the library's mistake must not end the relay
			err = fmt.Errorf("it cannot be compiled: %.200v", r)
		}
	}()
	document, err := parseSchema(text)
	if err != nil {
		return nil, err
	}
	s := &schema{each: 1}
	c := jsonschema.NewCompiler()
	c.UseLoader(noLoader{})
	c.UseRegexpEngine(s.regexp)
	c.RegisterVocabulary(&jsonschema.Vocabulary{URL: "walhook://steps", Compile: s.count})
	c.AssertVocabs()
	if err := c.AddResource(schemaURL, document); err != nil {
		return nil, schemaError(err)
	}
	s.left = int(findingsMemory / findingBytes) // examples and metaschemas are not checked in these steps; regular expressions are
	if s.compiled, err = c.Compile(schemaURL); err != nil {
		return nil, schemaError(err)
	}
	return s, nil
}

// parseSchema reads the text of a schema and bounds what compiling it takes.
func parseSchema(text []byte) (any, error) {
	if len(text) > maxSchema {
		return nil, fmt.Errorf("it has %d bytes: give at most 1 MB (%d bytes)", len(text), maxSchema)
	}
	// Whatever jsonb would refuse, and numbers like 1e9999999.
	if err := (outbox.Event{Type: "schema", Payload: json.RawMessage(text)}).Validate(); err != nil {
		return nil, errors.New(strings.ReplaceAll(validationText(err), "payload", "schema"))
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("it is not JSON: %w", err)
	}
	switch document.(type) {
	case map[string]any, bool:
	default:
		return nil, errors.New("it is no JSON Schema: write an object, true or false")
	}
	parts, depth := measure(document)
	if parts > maxSchemaParts || depth > maxSchemaDepth {
		return nil, fmt.Errorf("it has %d parts, nested %d deep: give at most %d (objects, arrays and booleans), nested %d deep",
			parts, depth, maxSchemaParts, maxSchemaDepth)
	}
	return document, nil
}

// measure counts objects, arrays and booleans, and how deep they are nested.
func measure(value any) (parts, depth int) {
	var inner []any
	switch v := value.(type) {
	case map[string]any:
		for _, member := range v {
			inner = append(inner, member)
		}
	case []any:
		inner = v
	case bool:
		return 1, 0
	default:
		return 0, 0
	}
	for _, one := range inner {
		p, d := measure(one)
		parts, depth = parts+p, max(depth, d)
	}
	return parts + 1, depth + 1
}

// count makes each part of a schema count when a value comes to it. The library has no hook for that but a format's check,
// which comes before whatever looks at members and elements.
func (s *schema) count(ctx *jsonschema.CompilerContext, _ map[string]any) (jsonschema.SchemaExt, error) {
	part := ctx.Enqueue(nil)
	inner := part.Format
	counting := jsonschema.Format{Validate: func(v any) error {
		s.spend(s.each * (1 + len(part.PatternProperties)) * (1 + shallow(v)))
		if part.UniqueItems {
			s.spend(s.each * deep(v))
		}
		if inner == nil {
			return nil
		}
		return inner.Validate(v)
	}}
	if inner != nil {
		counting.Name = inner.Name
	}
	part.Format = &counting
	if part.Enum != nil { // compared before any format is asked
		s.each = max(s.each, 1+len(part.Enum.Values)/8)
	}
	return nil, nil
}

// spend takes steps, and ends the check when there are none left.
func (s *schema) spend(steps int) {
	if s.left -= steps; s.left < 0 {
		panic(errTooMuch)
	}
}

// shallow is how many members or elements a value has.
func shallow(v any) int {
	switch v := v.(type) {
	case map[string]any:
		return len(v)
	case []any:
		return len(v)
	}
	return 0
}

// deep is how many values a value consists of.
func deep(v any) int {
	n := 1
	switch v := v.(type) {
	case map[string]any:
		for _, member := range v {
			n += deep(member)
		}
	case []any:
		for _, element := range v {
			n += deep(element)
		}
	}
	return n
}

// expression is a regular expression whose use counts: time grows with its size times the text's.
type expression struct {
	*regexp.Regexp
	of   *schema
	size int
}

func (s *schema) regexp(text string) (jsonschema.Regexp, error) {
	compiled, err := regexp.Compile(text)
	if err != nil {
		return nil, err
	}
	e := &expression{compiled, s, 1}
	if parsed, err := syntax.Parse(text, syntax.Perl); err == nil {
		if program, err := syntax.Compile(parsed.Simplify()); err == nil {
			e.size = len(program.Inst)
		}
	}
	return e, nil
}

// MatchString reports whether the text has a match.
func (e *expression) MatchString(text string) bool {
	e.of.spend(len(text) * e.size / 64)
	return e.Regexp.MatchString(text)
}

// check returns what is wrong with a payload.
func (s *schema) check(payload []byte) (findings []string, err error) {
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(payload)) // digits stay as they are
	if err != nil {
		return nil, fmt.Errorf("it is not JSON: %w", err)
	}
	_, depth := measure(value)
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() {
		switch r := recover().(type) {
		case nil:
		case error:
			if err = r; !errors.Is(r, errTooMuch) {
				err = fmt.Errorf("it cannot be checked: %w", r)
			}
		default:
			err = fmt.Errorf("it cannot be checked: %.200v", r)
		}
	}()
	s.left = findingsMemory / (findingBytes + findingPathBytes*depth)
	return findingsOf(s.compiled.Validate(value)), nil
}

// typeSchema reads the schema of an event type; empty: there is none.
func (s *Store) typeSchema(ctx context.Context, name string) (text string, rejects bool, err error) {
	err = s.db.QueryRow(ctx, `
SELECT coalesce(min(schema::text), ''), coalesce(bool_or(validation = 'reject'), false) FROM outbox.event_types WHERE name = $1::text AND schema IS NOT NULL`,
		name).Scan(&text, &rejects)
	if err != nil {
		return "", false, fmt.Errorf("read the schema of %s: %w", name, err)
	}
	return text, rejects, nil
}
