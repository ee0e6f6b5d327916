package route_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/route"
	"pgregory.net/rapid"
)

// The generators draw from few names and values, so that filters and payloads meet often.
var (
	names   = rapid.SampledFrom([]string{"a", "b", "a_min", "a.b", "0", "_min", "a*", "#", ""})
	keys    = rapid.SampledFrom([]string{"a", "b", "a_min", "a.b", "a.a.b", "a.0", "b.1.a", "0", "_min", "a._max", "a*", "#", "", ".", "b_max.a"})
	numbers = rapid.OneOf(
		rapid.SampledFrom([]string{"0", "-0", "1", "1.0", "1e0", "0.1e1", "-1", "2", "1.5", "15e-1", "9007199254740992", "9007199254740993",
			"9007199254740993.0", "1e300", "1e-300", "10E299", "123456789012345678901234567890"}),
		rapid.StringMatching(`-?(0|[1-9][0-9]{0,3})(\.[0-9]{1,3})?([eE][+-]?[0-9])?`))
	texts     = rapid.SampledFrom([]string{"", "a", "ab", "b", "é", "\U0001F600", "\uFFFD", "1", "null", "line\n\"break\"\\", "\x00"})
	notNumber = rapid.OneOf(
		rapid.Map(texts, func(s string) any { return s }),
		rapid.SampledFrom([]any{true, false, nil}))
	ordered = rapid.OneOf(rapid.Map(numbers, number), rapid.Map(texts, func(s string) any { return s }))
	scalars = rapid.OneOf(rapid.Map(numbers, number), notNumber)
	several = rapid.SliceOfN(scalars, 1, 20)
)

func number(text string) any { return json.Number(text) }

var values = rapid.Custom(func(t *rapid.T) any { return drawValue(t, 3) })

func drawValue(t *rapid.T, depth int) any {
	kind := rapid.IntRange(0, 4).Draw(t, "kind")
	switch {
	case depth > 0 && kind == 0:
		return drawObject(t, depth)
	case depth > 0 && kind == 1:
		array := make([]any, rapid.IntRange(0, 3).Draw(t, "length"))
		for i := range array {
			array[i] = drawValue(t, depth-1)
		}
		return array
	}
	return scalars.Draw(t, "scalar")
}

func drawObject(t *rapid.T, depth int) map[string]any {
	object := map[string]any{}
	for _, name := range rapid.SliceOfNDistinct(names, 0, 5, rapid.ID).Draw(t, "names") {
		object[name] = drawValue(t, depth-1)
	}
	return object
}

// payloads are mostly objects.
var payloads = rapid.Custom(func(t *rapid.T) any {
	if rapid.IntRange(0, 19).Draw(t, "odd payload") == 0 {
		return values.Draw(t, "payload")
	}
	return drawObject(t, 3)
})

// filters are valid ones.
var filters = rapid.Custom(func(t *rapid.T) any {
	filter := map[string]any{}
	for _, key := range rapid.SliceOfNDistinct(keys, 0, 3, rapid.ID).Draw(t, "keys") {
		filter[key] = drawCondition(t, key)
	}
	return filter
})

func drawCondition(t *rapid.T, key string) any {
	switch rapid.IntRange(0, 3).Draw(t, "condition") {
	case 0:
		return drawOperators(t)
	case 1:
		if key == "a_min" {
			return number(numbers.Draw(t, "bound"))
		}
		return several.Draw(t, "any of")
	}
	if key == "a_min" {
		return number(numbers.Draw(t, "bound"))
	}
	return scalars.Draw(t, "equal")
}

func drawOperators(t *rapid.T) any {
	all := []string{"eq", "ne", "in", "gt", "gte", "lt", "lte", "exists", "prefix"}
	operators := map[string]any{}
	for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom(all), 1, 2, rapid.ID).Draw(t, "operators") {
		switch name {
		case "eq", "ne":
			operators[name] = scalars.Draw(t, name)
		case "in":
			operators[name] = several.Draw(t, name)
		case "exists":
			operators[name] = rapid.Bool().Draw(t, name)
		case "prefix":
			operators[name] = texts.Draw(t, name)
		default:
			operators[name] = ordered.Draw(t, name)
		}
	}
	return operators
}

// encode writes JSON as jsonb does: no key twice, valid UTF-8.
func encode(t require.TestingT, v any) []byte {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	require.NoError(t, encoder.Encode(v))
	return text.Bytes()
}

func TestFilterAgreesWithNaiveEvaluator(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		filter, payload := filters.Draw(t, "filter"), payloads.Draw(t, "payload")
		filterText, payloadText := encode(t, filter), encode(t, payload)
		f, err := route.Compile(filterText)
		require.NoError(t, err, "filters %s", filterText)
		require.Equal(t, naiveMatch(filter, payload), f.Match(payloadText), "filters %s\npayload %s", filterText, payloadText)
	})
}

// Whatever is put and deleted in whatever order, the table matches what a list of rules would.
func TestTableAgreesWithNaiveEvaluator(t *testing.T) {
	patterns := rapid.SampledFrom([]string{"*", "a", "a.*", "a.b", "a.b.*", "a.b.c", "b.*",
		"walhook.*", "walhook.alert.*", "walhook.alert.lag"})
	tenants := rapid.SampledFrom([]string{"", "t"})
	rapid.Check(t, func(t *rapid.T) {
		table, rules := route.New(), map[uuid.UUID]delivery.Rule{}
		put := func(t *rapid.T) {
			r := delivery.Rule{
				SubscriptionID: id(rapid.IntRange(1, 12).Draw(t, "subscription")),
				Tenant:         tenants.Draw(t, "tenant"),
				EventTypes:     rapid.SliceOfN(patterns, 0, 3).Draw(t, "types"),
				Filters:        encode(t, filters.Draw(t, "filter")),
				Active:         rapid.IntRange(0, 4).Draw(t, "active") > 0,
			}
			require.NoError(t, table.Put(r))
			rules[r.SubscriptionID] = r
		}
		t.Repeat(map[string]func(*rapid.T){
			"put":       put,
			"put again": put, // twice as likely as deleting
			"delete": func(t *rapid.T) {
				which := id(rapid.IntRange(1, 12).Draw(t, "subscription"))
				table.Delete(which)
				delete(rules, which)
			},
			"": func(t *rapid.T) {
				require.Equal(t, len(rules), table.Len())
				e := &delivery.Event{
					Tenant:  tenants.Draw(t, "tenant"),
					Type:    rapid.SampledFrom([]string{"a", "a.b", "a.b.c", "b.x", "a.", "walhook.alert.lag", "walhook"}).Draw(t, "type"),
					Payload: encode(t, payloads.Draw(t, "payload")),
				}
				require.Equal(t, naiveTable(rules, e), table.Match([]uuid.UUID{}, e), "%s %s", e.Type, e.Payload)
			},
		})
		for which := range rules {
			table.Delete(which)
		}
		require.Zero(t, table.Footprint())
	})
}

func naiveTable(rules map[uuid.UUID]delivery.Rule, e *delivery.Event) []uuid.UUID {
	matching := []uuid.UUID{}
	for which, r := range rules {
		if naiveRule(r, e) {
			matching = append(matching, which)
		}
	}
	slices.SortFunc(matching, func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
	return matching
}

// fuzzSeeds are filters and payloads whose halves a fuzzer may cross.
var fuzzSeeds = map[string]string{
	`{"department": "cardiology", "patient_type": ["new", null], "amount_min": 1000}`: `{"department": "cardiology", "patient_type": "new", "amount": 1000.0}`,
	`{"a": {"gt": 1, "lte": 5e3, "ne": 2.50}, "b.0.c": {"in": [true, "x", null, 1]}}`: `{"a": 4, "b": [{"c": null}]}`,
	`{"a.b": {"exists": false}, "c": {"prefix": "\u00e9\n"}, "*#|@!{}[]\\.": -0.0}`:   `{"c": "é\nx", "*#|@!{}[]\\.": 0}`,
	`{"_min": 1, "a._max": "x", "x_max": 9007199254740992}`:                           `{"_min": 1e0, "a": {"_max": "x"}, "x": 9007199254740993}`,
	`{"a": {"like": {}}, "b": [], "c_min": "x"}`:                                      `[{"a": "b"}]`,
	`{"a": {"gte": "b", "lt": "c"}, "d": {"eq": null}}`:                               `{"a": "bz", "d": null, "e": [[[]]]}`,
	`{"a": 1e1000000000}`: `{"a": nan`,
}

func FuzzCompile(f *testing.F) {
	for filters := range fuzzSeeds {
		f.Add([]byte(filters))
	}
	f.Fuzz(func(t *testing.T, filters []byte) {
		compiled, err := route.Compile(filters)
		if err != nil {
			require.Less(t, len(err.Error()), 1000)
			require.Nil(t, compiled)
			return
		}
		// Bytes that are no payload must not do harm either.
		compiled.Match(filters)
	})
}

// big.Rat, unlike the package, writes out every zero of these.
var hugeExponent = regexp.MustCompile(`[eE][+-]?0*[0-9]{4}`)

func FuzzMatch(f *testing.F) {
	for filters, payload := range fuzzSeeds {
		f.Add(filters, payload)
	}
	f.Fuzz(func(t *testing.T, filters, payload string) {
		compiled, err := route.Compile([]byte(filters))
		if err != nil {
			return
		}
		compiled.Match([]byte(payload))
		if filters == "" || !json.Valid([]byte(payload)) || hugeExponent.MatchString(filters+" "+payload) {
			return
		}
		filter, err := decode(filters)
		if err != nil {
			return // nothing but white space, which is the empty filter
		}
		document, err := decode(payload)
		require.NoError(t, err)
		jsonb := encode(t, document)
		require.Equal(t, naiveMatch(filter, document), compiled.Match(jsonb), "filters %s\npayload %s", filters, jsonb)
	})
}

// The seeds reach both answers, so that agreement means something.
func TestFuzzSeedsReachBothAnswers(t *testing.T) {
	answers := map[string]int{}
	for filters, payload := range fuzzSeeds {
		compiled, err := route.Compile([]byte(filters))
		if err != nil {
			answers["refused"]++
			continue
		}
		answers[fmt.Sprint(compiled.Match([]byte(payload)))]++
	}
	require.Equal(t, map[string]int{"true": 4, "false": 1, "refused": 2}, answers)
}
