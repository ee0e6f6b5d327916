package stream_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/stream"
	"github.com/walhook/walhook/test/harness"
)

// What the decoder takes for an event is recorded as jsonb: had Postgres another opinion, the record
// transaction would fail for ever. The server itself is the judge here.
func TestPostgresAgreesOnWhatCanBeStored(t *testing.T) {
	db := harness.Connect(t, harness.Database(t))
	for _, c := range []struct {
		json string
		ok   bool
	}{
		{`{"a": [1, 2.50, -0.0, true, null, "x"], "b": {"c": {}}}`, true},
		{`"\"\\\/\b\f\n\r\t\u00e9 é 😀"`, true},
		{`"\\u0000"`, true}, // a backslash and letters
		{`"\\\u0000"`, false},
		{`"\u0000"`, false},
		{`{"\u0000": 1}`, false},
		{`"\uD83D\uDE00"`, true},
		{`"\uD83D"`, false},
		{`"\uD83Dx"`, false},
		{`"\uD83D\n"`, false},
		{`"\uD83D\u0041"`, false},
		{`"\uD83D\uD83D"`, false},
		{`"\uDE00"`, false},
		{`"\ud800"`, false},
		{`"\uD83D\uDE00\uDE00"`, false},
		{"\"\xff\"", false},
		{"\"\xed\xa0\x80\"", false}, // a surrogate, encoded
		{`1e131071`, true},
		{`12e131070`, true},
		{`1e131072`, false},
		{`12e131071`, false},
		{`-1E+131071`, true},
		{`1e-16383`, true},
		{`1e-16384`, false},
		{`0.1e-16382`, true},
		{`0.1e-16383`, false},
		{`1e9223372036854775807`, false},
		{`1e99999999999999999999`, false},
		{strings.Repeat("9", 131072), true},
		{strings.Repeat("9", 131073), false},
		{"-" + strings.Repeat("9", 131072), true},
		{"0." + strings.Repeat("9", 16383), true},
		{"0." + strings.Repeat("9", 16384), false},
		{strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000), true},
	} {
		_, err := db.Exec(t.Context(), "SELECT ($1::text)::jsonb", c.json)
		require.Equal(t, c.ok, err == nil, "Postgres on %.60q: %v", c.json, err)
		problem := stream.Unstorable([]byte(c.json))
		require.Equal(t, c.ok, problem == "", "the decoder on %.60q: %s", c.json, problem)
	}
}
