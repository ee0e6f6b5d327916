package outbox_test

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/outbox"
)

func TestValidateAcceptsWhatTheDatabaseTakes(t *testing.T) {
	for name, e := range map[string]outbox.Event{
		"type alone":       {Type: "ping"},
		"longest type":     {Type: strings.Repeat("a", outbox.MaxName)},
		"every character":  {Type: "!\"#$%&'()+,-./09:;<=>?@AZ[\\]^_`az{|}~"},
		"longest key":      {Type: "a", Key: strings.Repeat("ü", outbox.MaxKey/2)},
		"longest names":    {Type: "a", Tenant: strings.Repeat("t", 255), Source: strings.Repeat("s", 255), CorrelationID: strings.Repeat("c", 255)},
		"own id":           {Type: "a", ID: uuid.New()},
		"raw null":         {Type: "a", Payload: json.RawMessage("null")},
		"bytes":            {Type: "a", Payload: []byte(` {"a": [1, 2.50, -0]} `)},
		"string":           {Type: "a", Payload: "not {json"},
		"surrogate pair":   {Type: "a", Payload: json.RawMessage(`"\ud83d\ude00"`)},
		"escaped u0000":    {Type: "a", Payload: json.RawMessage(`"\\u0000"`)},
		"nil pointer":      {Type: "a", Payload: (*outbox.Event)(nil)},
		"headers":          {Type: "a", Headers: map[string]string{"traceparent": "00-<&>-01", "": ""}},
		"largest payload":  {Type: "a", Payload: json.RawMessage(`"` + strings.Repeat("x", outbox.MaxPayload-len(`""{}`)) + `"`)},
		"largest number":   {Type: "a", Payload: json.RawMessage("1e131071")},
		"smallest number":  {Type: "a", Payload: json.RawMessage("-1e-16383")},
		"white space only": {Type: "a", Payload: json.RawMessage("[" + strings.Repeat(" ", outbox.MaxPayload) + "]")},
	} {
		t.Run(name, func(t *testing.T) { require.NoError(t, e.Validate()) })
	}
}

func TestValidateNamesTheValueAndTheRemedy(t *testing.T) {
	long := strings.Repeat("x", 2000)
	shown := `"` + strings.Repeat("x", 60) + `"…`
	for name, c := range map[string]struct {
		event outbox.Event
		want  string
	}{
		"no type": {outbox.Event{},
			"the type is empty: name what happened, as in patient.created"},
		"long type": {outbox.Event{Type: long},
			"type " + shown + " has 2000 bytes, the most is 255: use a shorter name"},
		"space in type": {outbox.Event{Type: "patient created"},
			`type "patient created" has ' ' at byte 7: use printable ASCII without spaces and '*', as in patient.created`},
		"pattern as type": {outbox.Event{Type: "patient.*"},
			`type "patient.*" has '*' at byte 8: use printable ASCII without spaces and '*', as in patient.created`},
		"control in type": {outbox.Event{Type: "a\r\nb"},
			`type "a\r\nb" has '\r' at byte 1: use printable ASCII without spaces and '*', as in patient.created`},
		"type beyond ASCII": {outbox.Event{Type: "größe"},
			`type "größe" has 'ö' at byte 2: use printable ASCII without spaces and '*', as in patient.created`},
		"long key": {outbox.Event{Type: "a", Key: long},
			"key " + shown + " has 2000 bytes, the most is 1024: use the aggregate's id or a hash of it"},
		"long tenant": {outbox.Event{Type: "a", Tenant: long},
			"tenant " + shown + " has 2000 bytes, the most is 255: use a shorter name or an id"},
		"long source": {outbox.Event{Type: "a", Source: long},
			"source " + shown + " has 2000 bytes, the most is 255: use a shorter name or an id"},
		"long correlation id": {outbox.Event{Type: "a", CorrelationID: long},
			"correlation id " + shown + " has 2000 bytes, the most is 255: use a shorter name or an id"},
		"key not UTF-8": {outbox.Event{Type: "a", Key: "\xff"},
			`key "\xff" is not valid UTF-8: encode it, as in hex or base64`},
		"NUL in tenant": {outbox.Event{Type: "a", Tenant: "a\x00"},
			`tenant "a\x00" has a NUL byte, which Postgres cannot store: remove it`},
		"NUL in header name": {outbox.Event{Type: "a", Headers: map[string]string{"a\x00": ""}},
			`header name "a\x00" has a NUL byte, which Postgres cannot store: remove it`},
		"header not UTF-8": {outbox.Event{Type: "a", Headers: map[string]string{"a": "\xff"}},
			`the value of header "a" is not valid UTF-8: encode it, as in hex or base64`},
		"no JSON form": {outbox.Event{Type: "a", Payload: math.Inf(1)},
			"payload of type float64 has no JSON form: json: unsupported value: +Inf: change the type or pass json.RawMessage"},
		"empty JSON": {outbox.Event{Type: "a", Payload: []byte{}},
			`payload is empty, which is no JSON: pass nil for {} or json.RawMessage("null") for null`},
		"not JSON": {outbox.Event{Type: "a", Payload: []byte(`{"secret": x}`)},
			"payload is not JSON: invalid character 'x' looking for beginning of value at byte 12: pass JSON text, or a Go value other than []byte to be encoded"},
		"payload not UTF-8": {outbox.Event{Type: "a", Payload: []byte("\"\xff\"")},
			"payload is not valid UTF-8, as JSON must be: convert it, or pass binary data as a base64 string"},
		"NUL": {outbox.Event{Type: "a", Payload: map[string]string{"a": "b\x00"}},
			`payload: value at byte 5 has \u0000, which jsonb cannot store: remove it`},
		"NUL in a name": {outbox.Event{Type: "a", Payload: map[string]string{"b\x00": "a"}},
			`payload: value at byte 1 has \u0000, which jsonb cannot store: remove it`},
		"high surrogate": {outbox.Event{Type: "a", Payload: json.RawMessage(`"\ud83dx"`)},
			`payload: value at byte 0 has half of a surrogate pair, which jsonb refuses: write both halves or \ufffd`},
		"number too large": {outbox.Event{Type: "a", Payload: json.RawMessage(`[1e131072]`)},
			"payload: value at byte 1 has a number beyond Postgres's numeric, which jsonb refuses: pass it as a string"},
		"number too fine": {outbox.Event{Type: "a", Payload: json.RawMessage(`1e-16384`)},
			"payload: value at byte 0 has a number beyond Postgres's numeric, which jsonb refuses: pass it as a string"},
		"exponent too large": {outbox.Event{Type: "a", Payload: json.RawMessage(`[1, 0e1073741823]`)}, // Postgres before 18 refuses even this
			"payload: value at byte 4 has a number beyond Postgres's numeric, which jsonb refuses: pass it as a string"},
		"payload too large": {outbox.Event{Type: "a", Payload: strings.Repeat("x", outbox.MaxPayload)},
			"payload and headers have 10485764 bytes of JSON, the most is 10485760: store the document and publish a reference to it"},
		"grows in jsonb": {outbox.Event{Type: "a", Payload: json.RawMessage("[" + strings.Repeat("1,", outbox.MaxPayload/3) + "1]")},
			"payload and headers have 10485764 bytes of JSON, the most is 10485760: store the document and publish a reference to it"},
		"headers count": {outbox.Event{Type: "a", Payload: "", Headers: map[string]string{"": strings.Repeat("x", outbox.MaxPayload)}},
			"payload and headers have 10485770 bytes of JSON, the most is 10485760: store the document and publish a reference to it"},
		"several": {outbox.Event{Key: "\xff"},
			"the type is empty: name what happened, as in patient.created\n" + `key "\xff" is not valid UTF-8: encode it, as in hex or base64`},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.event.Validate()
			require.ErrorIs(t, err, outbox.ErrInvalid)
			require.Equal(t, "invalid event: "+c.want, err.Error())
		})
	}
}

// failing cannot be encoded.
type failing struct{ err error }

func (f failing) MarshalJSON() ([]byte, error) { return nil, f.err }

func TestValidateKeepsThePayloadsOwnError(t *testing.T) {
	own := errors.New("no such patient")
	require.ErrorIs(t, outbox.Event{Type: "a", Payload: failing{own}}.Validate(), own)
}

func TestPayloadIsNotShown(t *testing.T) {
	for _, payload := range []string{"\"diabetes\xff\"", `{"diabetes": x}`, `"diabetes\u0000"`, `"diabetes\ud800"`} {
		err := outbox.Event{Type: "a", Payload: []byte(payload)}.Validate()
		require.ErrorIs(t, err, outbox.ErrInvalid)
		require.NotContains(t, err.Error(), "diabetes")
	}
}

func FuzzValidate(f *testing.F) {
	for _, seed := range jsonTexts {
		f.Add("a.b", []byte(seed), "key")
	}
	f.Fuzz(func(t *testing.T, name string, payload []byte, key string) {
		err := outbox.Event{Type: name, Payload: payload, Key: key}.Validate()
		if err == nil && !json.Valid(payload) {
			t.Fatalf("%q is accepted and is not JSON", payload)
		}
		if err != nil && !errors.Is(err, outbox.ErrInvalid) {
			t.Fatalf("%v does not wrap ErrInvalid", err)
		}
	})
}

func BenchmarkValidate(b *testing.B) {
	e := outbox.Event{Type: "patient.created", Key: "p-1", Payload: json.RawMessage(
		`{"patient_id": "p-1", "name": "Ada \u00c9lise", "age": 36, "notes": "` + strings.Repeat("lorem ipsum ", 30) + `"}`)}
	b.ReportAllocs()
	for b.Loop() {
		if err := e.Validate(); err != nil {
			b.Fatal(err)
		}
	}
}
