package admin

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/outbox"
)

func TestSchemaFindings(t *testing.T) {
	t.Parallel()
	const patient = `{"type": "object", "required": ["id", "name"], "additionalProperties": false, "properties": {
		"id": {"type": "integer", "minimum": 1}, "name": {"type": "string", "maxLength": 5}, "born": {"type": "string", "pattern": "^[0-9-]+$"},
		"ward": {"$ref": "#/$defs/ward"}}, "$defs": {"ward": {"enum": ["a", "b"]}}}`
	var s schemas
	for payload, wanted := range map[string][]string{
		`{"id": 1, "name": "x", "ward": "a"}`:             nil,
		`{"id": 1}`:                                       {"missing property 'name'"},
		`{"id": 0, "name": "x"}`:                          {"at /id: is too small"},
		`{"id": "s3cr3t", "name": "longer"}`:              {"at /id: got string, want integer", "at /name: maxLength: got 6, want 5"},
		`{"id": 1, "name": "x", "born": "s3cr3t"}`:        {`at /born: does not match the pattern "^[0-9-]+$"`},
		`{"id": 1, "name": "x", "ward": "s3cr3t"}`:        {"at /ward: value must be one of 'a', 'b'"},
		`{"id": 1, "name": "x", "y": "s3cr3t"}`:           {"additional properties 'y' not allowed"},
		`"s3cr3t"`:                                        {"got string, want object"},
		`{"id": 1.0, "name": "x"}`:                        nil, // an integer, in JSON Schema
		`{"id": 1.00000000000000000000001, "name": "x"}`:  {"at /id: got number, want integer"},
		`{"id": 123456789012345678901.5, "name": "x"}`:    {"at /id: got number, want integer"},
		`{"id": 1e400, "name": "x"}`:                      nil,
		`{"id": 1, "name": "x", "born": "1", "ward":"b"}`: nil,
	} {
		findings, err := s.check(patient, []byte(payload))
		require.NoError(t, err, payload)
		require.Equal(t, wanted, findings, payload)
		require.NotContains(t, strings.Join(findings, ""), "s3cr3t")
	}
	require.Len(t, s.byText.entries, 1, "compiled once")
}

// Digits that a float64 has not are compared all the same.
func TestSchemasLoseNoDigits(t *testing.T) {
	t.Parallel()
	var s schemas
	for payload, fits := range map[string]bool{`9007199254740993`: true, `9007199254740992`: false, `9007199254740993.0`: true} {
		for _, text := range []string{`{"const": 9007199254740993}`, `{"enum": [9007199254740993]}`, `{"minimum": 9007199254740993}`} {
			findings, err := s.check(text, []byte(payload))
			require.NoError(t, err)
			require.Equal(t, fits, len(findings) == 0, "%s %s", text, payload)
		}
	}
}

func TestFindingsAreFewAndShort(t *testing.T) {
	t.Parallel()
	var s schemas
	findings, err := s.check(`{"items": {"type": "string"}}`, []byte("["+strings.Repeat("1,", 20_000)+"1]"))
	require.NoError(t, err)
	require.Len(t, findings, maxFindings+1)
	require.Equal(t, "and more", findings[maxFindings])
	long := strings.Repeat("x", 100_000)
	findings, err = s.check(`{"additionalProperties": {"additionalProperties": false}, "required": ["`+long+`"]}`, []byte(`{"`+long+`y": {"`+long+`": 1}}`))
	require.NoError(t, err)
	require.NotEmpty(t, findings)
	for _, f := range findings {
		require.LessOrEqual(t, len(f), maxFinding+len("…"))
	}
}

// A schema that is wrong is told which of its keywords is; none makes us read a file or a URL.
func TestSchemasThatAreRefused(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "schema.json")
	require.NoError(t, os.WriteFile(file, []byte(`{"type": "string"}`), 0o600))
	for text, words := range map[string]string{
		``:                  "JSON",
		`{`:                 "JSON",
		`1`:                 "object, true or false",
		`"x"`:               "object, true or false",
		`[]`:                "object, true or false",
		`{"type": "sting"}`: "/type",
		`{"properties": {"a": {"minLength": -1}}}`:                           "/properties/a/minLength",
		`{"required": "id"}`:                                                 "/required",
		`{"pattern": "("}`:                                                   "pattern",
		`{"pattern": "(?=x)"}`:                                               "pattern",
		`{"$ref": "#/$defs/none"}`:                                           "/$defs/none",
		`{"$ref": "#none"}`:                                                  "none",
		`{"$ref": "file://` + file + `"}`:                                    "outside the schema",
		`{"$ref": "` + file + `"}`:                                           "outside the schema",
		`{"$ref": "other.json"}`:                                             "outside the schema",
		`{"$ref": "http://127.0.0.1:1/s"}`:                                   "outside the schema",
		`{"$schema": "https://127.0.0.1:1/s"}`:                               "outside the schema",
		`{"$id": "file:///etc/", "$ref": "passwd"}`:                          "outside the schema",
		`{"$schema": "../../../../etc/passwd"}`:                              "outside the schema",
		`{"multipleOf": 0}`:                                                  "/multipleOf",
		`{"minimum": 1e9999999}`:                                             "number",
		`{"title": "\u0000"}`:                                                `\u0000`,
		strings.Repeat(`{"not":`, 101) + "true" + strings.Repeat("}", 101):   "nested 101 deep",
		strings.Repeat(`{"not":`, 9000) + "true" + strings.Repeat("}", 9000): "nested",
		`{"enum": [` + strings.Repeat("true,", 5000) + `true]}`:              "parts",
		`{"title": "` + strings.Repeat("x", maxSchema) + `"}`:                "at most 1 MB",
	} {
		_, err := compileSchema([]byte(text))
		require.ErrorContains(t, err, words, "%.100s", text)
		require.Less(t, len(err.Error()), 2000)
		require.NotContains(t, err.Error(), schemaURL)
		require.NotRegexp(t, "\n|metaschema", err.Error(), "the library's words for itself")
	}
	for _, text := range []string{`true`, `false`, `{}`, `{"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"}`,
		`{"$schema": "https://json-schema.org/draft/2019-09/schema"}`, `{"$ref": "#"}`, `{"$id": "https://example.com/x", "$defs": {"a": {"$id": "a"}}, "$ref": "a"}`,
		`{"x-unknown": 1}`} {
		_, err := compileSchema([]byte(text))
		require.NoError(t, err, text)
	}
}

// What would take minutes or all memory ends with an error instead: schemas that branch without end, deep and wide payloads,
// expensive expressions.
func TestChecksAreBounded(t *testing.T) {
	t.Parallel()
	branches := `{"$defs": {"a0": {"type": "string"}`
	for i := 1; i < 60; i++ {
		ref := `{"$ref": "#/$defs/a` + itoa(i-1) + `"}`
		branches += `, "a` + itoa(i) + `": {"anyOf": [` + ref + `, ` + ref + `]}`
	}
	branches += `}, "$ref": "#/$defs/a59"}`
	numbers := "[" + strings.Repeat("1,", 3_000_000) + "1]"
	deep := strings.Repeat("[", 4000) + strings.Repeat("1,", 500_000) + "1" + strings.Repeat("]", 4000)
	for name, c := range map[string]struct{ schema, payload string }{
		"branches":  {branches, `1`},
		"wide":      {`{"items": {"type": "string"}}`, numbers},
		"deep":      {`{"items": {"$ref": "#"}, "type": "array"}`, deep},
		"unique":    {`{"items": {"$ref": "#"}, "uniqueItems": true}`, deep},
		"pattern":   {`{"pattern": "^([a-z]{1,100}x?){9}$"}`, `"` + strings.Repeat("abc", 3_000_000) + `"`},
		"many enum": {`{"items": {"enum": [` + strings.Repeat("1e2,", 4000) + `1]}}`, "[" + strings.Repeat("2,", 100_000) + "2]"},
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, outbox.Event{Type: "x", Payload: json.RawMessage(c.payload)}.Validate())
			var s schemas
			began := time.Now()
			_, err := s.check(c.schema, []byte(c.payload))
			require.ErrorIs(t, err, errTooMuch)
			t.Log(time.Since(began))
			findings, err := s.check(`{"maxLength": 1}`, []byte(`"ab"`))
			require.NoError(t, err)
			require.Len(t, findings, 1)
		})
	}
}

func itoa(n int) string {
	text, _ := json.Marshal(n)
	return string(text)
}

// Compiled schemas are few, and one is used by many at once.
func TestSchemasAreForgotten(t *testing.T) {
	t.Parallel()
	var s schemas
	for i := range maxSchemas + 10 {
		_, err := s.check(`{"const": `+itoa(i)+`}`, []byte(itoa(i)))
		require.NoError(t, err)
	}
	require.Len(t, s.byText.entries, maxSchemas)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for n := range 100 {
				findings, err := s.check(`{"const": `+itoa(n%3)+`}`, []byte(itoa(i)))
				if err != nil || (len(findings) == 0) != (n%3 == i) {
					t.Errorf("%d is said to be %d: %v %v", i, n%3, findings, err)
				}
			}
		})
	}
	all.Wait()
}

// FuzzSchema: no schema and no payload end the program, take forever, or make it read anything.
func FuzzSchema(f *testing.F) {
	f.Add(`{"type": "object", "properties": {"a": {"multipleOf": 0.1}}}`, `{"a": 1e131071}`)
	f.Add(`{"$dynamicRef": "#a", "$dynamicAnchor": "a", "uniqueItems": true}`, `[1, 1.0, [1], [1e0]]`)
	f.Add(`{"$schema": "http://json-schema.org/draft-04/schema", "id": "x", "dependencies": {"a": ["b"]}}`, `{"a": null}`)
	f.Add(`{"$ref": "file:///etc/passwd"}`, `1`)
	f.Add(`{"not": {"anyOf": [{"$ref": "#"}, {"minimum": -1e-300}]}}`, `-0.0`)
	f.Add(`{"unevaluatedProperties": false, "patternProperties": {"^a{0,1000}$": {"format": "regex"}}}`, `{"aa": "("}`)
	f.Add(`{"$vocabulary": {"x": true}, "$id": "walhook://event-type/schema", "$schema": "walhook://event-type/schema"}`, `{}`)
	f.Fuzz(func(t *testing.T, text, payload string) {
		made, err := compileSchema([]byte(text))
		if err != nil {
			require.NotEmpty(t, err.Error())
			return
		}
		if (outbox.Event{Type: "x", Payload: json.RawMessage(payload)}).Validate() != nil {
			return
		}
		findings, err := made.check([]byte(payload))
		require.LessOrEqual(t, len(findings), maxFindings+1)
		if err != nil {
			require.Empty(t, findings)
		}
	})
}
