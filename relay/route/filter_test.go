package route_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/walhook/walhook/relay/route"
)

func compile(t testing.TB, filters string) *route.Filter {
	t.Helper()
	f, err := route.Compile([]byte(filters))
	require.NoError(t, err, "filters %s", filters)
	return f
}

func TestFilterMatch(t *testing.T) {
	const order = `{"department": "cardiology", "patient_type": "new", "amount": 1500.50, "paid": true, "referrer": null,
		"patient": {"age": 42, "name": "Ann", "address": {"city": "Łódź"}}, "items": [{"sku": "a-1"}, {"sku": "b-2"}],
		"tags": ["x"], "patient.age": 7, "amount_min": 5, "note": "line\nbreak \"quoted\" \u00e9", "": "empty", "_min": 3}`
	for _, test := range []struct {
		filters string
		want    bool
	}{
		{`{}`, true},
		{``, true},
		{`{"department": "cardiology", "patient_type": "new", "amount_min": 1000}`, true},
		{`{"department": "cardiology", "patient_type": "old"}`, false},
		{`{"department": "Cardiology"}`, false},

		{`{"paid": true}`, true},
		{`{"paid": false}`, false},
		{`{"paid": "true"}`, false},
		{`{"paid": 1}`, false},
		{`{"referrer": null}`, true},
		{`{"missing": null}`, false},
		{`{"paid": null}`, false},
		{`{"amount": 1500.5}`, true},
		{`{"amount": "1500.5"}`, false},
		{`{"tags": "x"}`, false},
		{`{"note": "line\nbreak \"quoted\" é"}`, true},
		{`{"": "empty"}`, true},

		{`{"department": ["oncology", "cardiology"]}`, true},
		{`{"department": ["oncology", null, 3]}`, false},
		{`{"referrer": ["x", null]}`, true},

		{`{"amount_min": 1500.5}`, true},
		{`{"amount_min": 1500.51}`, false},
		{`{"amount_max": 1500.50}`, true},
		{`{"amount_max": 1500.49}`, false},
		{`{"department_min": 1}`, false},
		{`{"missing_max": 1}`, false},
		{`{"amount_min": {"eq": 5}}`, true},
		{`{"amount_min": {"gt": 5}}`, false},
		{`{"_min": 3}`, true},
		{`{"_min": "x"}`, false},

		{`{"patient.age": 7}`, true},      // the field of that very name wins
		{`{"patient.age": 42}`, false},    // so that the path is hidden
		{`{"patient.age_max": 7}`, true},  // also for bounds
		{`{"patient.name": "Ann"}`, true}, // no such field: the path
		{`{"patient.address.city": "Łódź"}`, true},
		{`{"patient.address.zip": "x"}`, false},
		{`{"patient.name.first": "x"}`, false},
		{`{"items.0.sku": "a-1"}`, true},
		{`{"items.1.sku": "a-1"}`, false},
		{`{"items.2.sku": "a-1"}`, false},
		{`{"items.00.sku": "a-1"}`, false},
		{`{"items.-1.sku": "b-2"}`, false},
		{`{"items.9999999999999999999999.sku": "b-2"}`, false},
		{`{"items.#.sku": "a-1"}`, false},
		{`{"patient.*": 42}`, false},

		{`{"department": {"eq": "cardiology"}}`, true},
		{`{"department": {"ne": "cardiology"}}`, false},
		{`{"department": {"ne": "oncology"}}`, true},
		{`{"department": {"ne": 5}}`, true},
		{`{"missing": {"ne": "x"}}`, true},
		{`{"missing": {"ne": null}}`, true},
		{`{"referrer": {"ne": null}}`, false},
		{`{"tags": {"ne": "x"}}`, true},
		{`{"department": {"in": ["cardiology", 1]}}`, true},
		{`{"department": {"in": [1]}}`, false},
		{`{"patient.address.city": {"prefix": "Łó"}}`, true},
		{`{"department": {"prefix": ""}}`, true},
		{`{"department": {"prefix": "ard"}}`, false},
		{`{"amount": {"prefix": "15"}}`, false},
		{`{"amount": {"gt": 1500, "lt": 1501}}`, true},
		{`{"amount": {"gt": 1500.5}}`, false},
		{`{"amount": {"gte": 1500.5, "lte": 1500.5}}`, true},
		{`{"amount": {"gt": 1500, "ne": 1500.50}}`, false},
		{`{"amount": {"gt": "0"}}`, false},
		{`{"department": {"gt": "b", "lt": "d"}}`, true},
		{`{"department": {"gte": "cardiology", "lte": "cardiology"}}`, true},
		{`{"department": {"lt": "cardiology"}}`, false},
		{`{"department": {"gt": 0}}`, false},
		{`{"paid": {"gt": 0}}`, false},
		{`{"tags": {"gt": 0}}`, false},
		{`{"referrer": {"exists": true}}`, true},
		{`{"referrer": {"exists": false}}`, false},
		{`{"missing": {"exists": false}}`, true},
		{`{"missing": {"exists": true}}`, false},
		{`{"patient": {"exists": true}}`, true},
	} {
		require.Equal(t, test.want, compile(t, test.filters).Match([]byte(order)), "filters %s", test.filters)
	}
}

func TestFilterComparesNumbersExactly(t *testing.T) {
	ascending := []string{"-1e1000000", "-9007199254740993", "-9007199254740992", "-1.5", "-1e-1000000", "0", "1e-400", "2e-400",
		"0.1", "0.10000000000000000000000000000000000001", "1", "1.0000000000000000000001", "12", "123", "9007199254740992",
		"9007199254740993", "18446744073709551616", "1e400", "10000000000000000000001e380", "1e1000000"}
	for i, filter := range ascending {
		for j, payload := range ascending {
			require.Equal(t, i == j, compile(t, `{"n": `+filter+`}`).Match([]byte(`{"n": `+payload+`}`)), "%s = %s", payload, filter)
			require.Equal(t, j >= i, compile(t, `{"n_min": `+filter+`}`).Match([]byte(`{"n": `+payload+`}`)), "%s >= %s", payload, filter)
			require.Equal(t, j < i, compile(t, `{"n": {"lt": `+filter+`}}`).Match([]byte(`{"n": `+payload+`}`)), "%s < %s", payload, filter)
		}
	}
}

func TestFilterTakesNumbersHoweverWritten(t *testing.T) {
	for _, same := range [][]string{
		{"1", "1.0", "1e0", "1E0", "10e-1", "0.1e1", "0.001e+3", "1.000000000000000000000000000000"},
		{"0", "-0", "0.0", "-0.00", "0e5", "0e99999999999999999999999"},
		{"-1200", "-1.2e3", "-12E+2", "-120000e-2", "-1200.0"},
		{"9007199254740993", "9007199254740993.0", "9.007199254740993e15"},
	} {
		for _, filter := range same {
			for _, payload := range same {
				require.True(t, compile(t, `{"n": `+filter+`}`).Match([]byte(`{"n":`+payload+`}`)), "%s = %s", payload, filter)
				require.True(t, compile(t, `{"n": [7, `+filter+`, "7"]}`).Match([]byte(`{"n":`+payload+`}`)), "%s = %s", payload, filter)
			}
		}
	}
}

func TestFilterSurvivesHugeExponents(t *testing.T) {
	atLeast, atMost := compile(t, `{"n_min": 5}`), compile(t, `{"n_max": 5}`)
	for _, huge := range []string{"1e1000000000", "1e99999999999999999999999999", "0.0001e999999999999999999"} {
		require.True(t, atLeast.Match([]byte(`{"n": `+huge+`}`)), huge)
		require.False(t, atMost.Match([]byte(`{"n": `+huge+`}`)), huge)
		require.True(t, atMost.Match([]byte(`{"n": -`+huge+`}`)), huge)
		small := strings.Replace(huge, "e", "e-", 1)
		require.False(t, atLeast.Match([]byte(`{"n": `+small+`}`)), small)
		require.True(t, atMost.Match([]byte(`{"n": `+small+`}`)), small)
	}
}

// Every character that gjson's path language gives a meaning, in names that must stay names.
func TestFilterKeysAreNotPathExpressions(t *testing.T) {
	for _, name := range []string{"*", "?", "a*", "#", "#(x==1)", "#.x", "|", "a|b", "@this", "@pretty:{}", "!", `!"x"`, "{a,b}", "[a]", `\`, `a\`,
		`\\`, `\.`, `"`, "..", ".", "a..b", ":1", "~true", "$", "\x00", "\u2028", "key with space", "é", "0", "-1"} {
		payload := fmt.Sprintf(`{%s: {%s: 1}, "a": {"b": 2}, "x": 1, "b": 3}`, quoted(t, name), quoted(t, name))
		filter := func(key string) *route.Filter { return compile(t, fmt.Sprintf(`{%s: 1}`, quoted(t, key))) }
		require.True(t, filter(name).Match([]byte(`{"x": 5, `+quoted(t, name)+`: 1}`)), "%q at the top", name)
		require.False(t, filter(name).Match([]byte(`{"x": 1, "a": {"x": 1}, "b": [1]}`)), "%q is not there", name)
		if !strings.Contains(name, ".") {
			require.True(t, filter(name+"."+name).Match([]byte(payload)), "%q inside", name)
		}
	}
}

func TestFilterOnPayloadThatIsNoObject(t *testing.T) {
	for _, payload := range []string{``, `null`, `5`, `"a"`, `[{"a": 1}]`, `true`, ` `, `{`, `{"a"`, `{"a":`, `nan`} {
		require.True(t, compile(t, `{}`).Match([]byte(payload)), payload)
		for _, filters := range []string{`{"a": 1}`, `{"0": 5}`, `{"0.a": 1}`, `{"a_min": 0}`} {
			require.False(t, compile(t, filters).Match([]byte(payload)), "%s on %s", filters, payload)
		}
	}
	for _, payload := range []string{`null`, `[{"a": 1}]`} {
		require.False(t, compile(t, `{"b": {"exists": false}}`).Match([]byte(payload)), payload)
		require.False(t, compile(t, `{"b": {"ne": 1}}`).Match([]byte(payload)), payload)
	}
}

func TestCompileRefuses(t *testing.T) {
	deep := strings.Repeat("[", 30_000) + strings.Repeat("]", 30_000)
	for _, test := range []struct {
		filters string
		says    []string
	}{
		{`[]`, []string{"filters", `[] is not a JSON object`}},
		{`null`, []string{"not a JSON object"}},
		{`{"a": 1`, []string{"filters", "not valid JSON"}},
		{`{"a": 1} {}`, []string{"not valid JSON"}},
		{"{\"a\": \"\xff\"}", []string{"UTF-8"}},
		{`{"a": 1, "b": 2, "a": 3}`, []string{`"a"`, "twice"}},
		{`{"a": 1, "\u0061": 3}`, []string{`"a"`, "twice"}},
		{`{"a": {}}`, []string{`"a"`, "empty", "eq, ne, in, gt, gte, lt, lte, exists, prefix"}},
		{`{"a": {"like": "x"}}`, []string{`"a"`, `unknown operator "like"`, "eq, ne, in, gt, gte, lt, lte, exists, prefix"}},
		{`{"a": {"EQ": "x"}}`, []string{`unknown operator "EQ"`}},
		{`{"a": {"gt": 1, "gt": 2}}`, []string{`"a"`, `"gt"`, "twice"}},
		{`{"a": {"eq": {"b": 1}}}`, []string{`"a"`, "eq takes a string, number, boolean or null"}},
		{`{"a": {"eq": [1]}}`, []string{`"a"`, "eq takes", `"in"`}},
		{`{"a": {"ne": [1]}}`, []string{`"a"`, "ne takes"}},
		{`{"a": {"gt": true}}`, []string{`"a"`, "gt takes a number or a string, not true"}},
		{`{"a": {"gte": null}}`, []string{"gte takes"}},
		{`{"a": {"lt": []}}`, []string{"lt takes"}},
		{`{"a": {"lte": {}}}`, []string{"lte takes"}},
		{`{"a": {"prefix": 5}}`, []string{"prefix takes a string, not 5"}},
		{`{"a": {"exists": "yes"}}`, []string{"exists takes true or false", `"yes"`}},
		{`{"a": {"in": "x"}}`, []string{"in takes an array"}},
		{`{"a": {"in": []}}`, []string{"empty array"}},
		{`{"a": {"in": [[1]]}}`, []string{`"a"`, "[1]"}},
		{`{"a": []}`, []string{`"a"`, "empty array"}},
		{`{"a": [1, {"b": 2}]}`, []string{`"a"`, `{"b": 2}`, "dotted path"}},
		{`{"amount_min": "x"}`, []string{`"amount_min"`, "must be a number", `{"amount_min": {"eq": …}}`}},
		{`{"amount_max": null}`, []string{`"amount_max"`, "must be a number, not null"}},
		{`{"amount_max": [1]}`, []string{`"amount_max"`, "must be a number, not [1]"}},
		{`{"a": 1e1000000000}`, []string{`"a"`, "1e1000000000", "out of range"}},
		{`{"a": {"gt": -1e-99999999999999999999}}`, []string{`"a"`, "out of range"}},
		{`{"a_min": 1e1000000000}`, []string{`"a_min"`}},
		{`{"a": ` + deep + `}`, []string{"filter"}},
		{`{"a": "` + strings.Repeat("x", 64<<10) + `"}`, []string{"65545 bytes", "65536"}},
		{`{"` + strings.Repeat("k", 1025) + `": 1}`, []string{"1025 bytes", "1024"}},
		{`{"` + strings.Repeat("a.", 32) + `a": 1}`, []string{"33 levels", "32"}},
		{manyConditions(65), []string{"64 conditions"}},
		{`{"z": {"gt": 1, "lt": 2}, ` + manyConditions(63)[1:], []string{"64 conditions"}},
	} {
		_, err := route.Compile([]byte(test.filters))
		require.Error(t, err, "filters %.100s", test.filters)
		require.Less(t, len(err.Error()), 500)
		for _, part := range test.says {
			require.ErrorContains(t, err, part)
		}
	}
}

func TestCompileAtTheLimits(t *testing.T) {
	compile(t, manyConditions(64))
	compile(t, `{"`+strings.Repeat("k", 1024)+`": 1}`)
	compile(t, `{"a": "`+strings.Repeat("x", 64<<10-9)+`"}`)
	path := strings.Repeat("a.", 31) + "a"
	payload := strings.Repeat(`{"a": `, 32) + "1" + strings.Repeat("}", 32)
	require.True(t, compile(t, `{"`+path+`": 1}`).Match([]byte(payload)))
	require.True(t, compile(t, `{"\u0000": "\u0000"}`).Match([]byte(`{"\u0000": "\u0000"}`)))
}

func manyConditions(n int) string {
	conditions := make([]string, n)
	for i := range conditions {
		conditions[i] = fmt.Sprintf(`"f%d": %d`, i, i)
	}
	return "{" + strings.Join(conditions, ", ") + "}"
}
