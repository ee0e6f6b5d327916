package outbox_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/walhook/walhook/outbox"
	"github.com/walhook/walhook/test/harness"
)

// jsonTexts are JSON texts whose size in jsonb differs from their own, or nearly.
var jsonTexts = []string{
	`null`, `true`, `false`, `0`, `""`, `[]`, `{}`, ` [ ] `, `[1,2,3]`, "{\"a\" :\t1,\r\n\"b\":[{},{\"c\":null}]}",
	`"\/"`, `"\""`, `"\\"`, `"\b\f\n\r\t"`, `"\u0001\u001f"`, `"\u0008\u0009\u000a\u000c\u000d"`, `"\u0022\u005C"`, `"\u007f"`,
	`"\u00e9\u20AC"`, `"é€😀"`, `"\ud83d\ude00"`, `"\uffff"`, `"a, b: c"`, `{"x":"\\u0000"}`,
	`-0`, `-0.0`, `0.0`, `0.000`, `-0.5`, `1.50`, `10`, `-12.3400`, `1e2`, `1E+2`, `1e-2`, `12.34e1`, `12.34e5`, `0.0012e2`, `0.0012e-2`,
	`-0.0012e4`, `0e5`, `0e-5`, `0.00e1`, `100e-2`, `1.0e1`, `9007199254740993`, `1e131071`, `1e131072`, `0.1e131072`, `0.1e131073`,
	`1e-16383`, `1e-16384`, `0e-16383`, `0e-16384`, `0e131073`, `1e99999999999999999999`,
	`"\u0000"`, `"\ud83d"`, `"\ude00"`, `"\ud83d\u0041"`, `"\ud83dA"`, `"\ud83d\ud83d"`, `{"\u0000":1}`, `"\uD83D\uDE00\u0000"`,
}

// TestJSONBSizeAgreesWithPostgres compares what is accepted, and how large it is, with what Postgres says.
func TestJSONBSizeAgreesWithPostgres(t *testing.T) {
	pool := harness.Connect(t, harness.EmptyDatabase(t))
	for _, text := range jsonTexts {
		requireSameSize(t, pool, text)
	}
}

// TestJSONBSizeAgreesOnGeneratedTexts does the same with texts made from pieces.
func TestJSONBSizeAgreesOnGeneratedTexts(t *testing.T) {
	pool := harness.Connect(t, harness.EmptyDatabase(t))
	rapid.Check(t, func(r *rapid.T) { requireSameSize(r, pool, jsonText(3).Draw(r, "text")) })
}

// requireSameSize checks one text. Names in generated objects are unique, because a size counts all of them.
func requireSameSize(t require.TestingT, pool *pgxpool.Pool, text string) {
	require.True(t, json.Valid([]byte(text)), text)
	size, err := outbox.JSONBSize([]byte(text))
	var want int
	wantErr := pool.QueryRow(context.Background(), "SELECT octet_length($1::text::jsonb::text)", text).Scan(&want)
	if err != nil {
		require.Error(t, wantErr, "%s: Postgres accepts it, %v", text, err)
		return
	}
	require.NoError(t, wantErr, text)
	require.Equal(t, want, size, text)
}

// jsonText generates JSON texts of at most so many levels.
func jsonText(depth int) *rapid.Generator[string] {
	space := rapid.SampledFrom([]string{"", "", " ", "\n\t"})
	scalar := rapid.OneOf(
		rapid.SampledFrom([]string{"null", "true", "false"}),
		rapid.StringMatching(`-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?`),
		jsonString(),
	)
	if depth == 0 {
		return scalar
	}
	return rapid.Custom(func(r *rapid.T) string {
		pad := func() string { return space.Draw(r, "space") }
		items := rapid.SliceOfN(jsonText(depth-1), 0, 4).Draw(r, "items")
		switch rapid.IntRange(0, 2).Draw(r, "kind") {
		case 0:
			return pad() + scalar.Draw(r, "scalar") + pad()
		case 1:
			return "[" + pad() + strings.Join(items, pad()+","+pad()) + "]"
		}
		for i := range items {
			items[i] = fmt.Sprintf("%s\"%d\\u00e9\"%s:%s", pad(), i, pad(), items[i])
		}
		return "{" + pad() + strings.Join(items, ",") + pad() + "}"
	})
}

// jsonString generates strings with all kinds of escapes, some of which jsonb refuses.
func jsonString() *rapid.Generator[string] {
	piece := rapid.OneOf(
		rapid.SampledFrom([]string{`\"`, `\\`, `\/`, `\b`, `\f`, `\n`, `\r`, `\t`, `\ud83d\ude00`, "😀", "é", "a", " ", ", ", ": "}),
		rapid.StringMatching(`\\u00[0-9a-fA-F]{2}`),
		rapid.StringMatching(`\\u[0-9a-fA-F]{4}`),
	)
	return rapid.Map(rapid.SliceOfN(piece, 0, 5), func(pieces []string) string { return `"` + strings.Join(pieces, "") + `"` })
}
