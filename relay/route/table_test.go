package route_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/route"
)

func quoted(t testing.TB, s string) string {
	t.Helper()
	text, err := json.Marshal(s)
	require.NoError(t, err)
	return string(text)
}

// id makes ids that sort as their numbers do.
func id(n int) uuid.UUID {
	return uuid.UUID{12: byte(n >> 24), 13: byte(n >> 16), 14: byte(n >> 8), 15: byte(n)}
}

func rule(n int, filters string, eventTypes ...string) delivery.Rule {
	return delivery.Rule{SubscriptionID: id(n), EventTypes: eventTypes, Filters: []byte(filters), Active: true}
}

func event(eventType, payload string) *delivery.Event {
	return &delivery.Event{Type: eventType, Payload: []byte(payload)}
}

func TestTableEventTypes(t *testing.T) {
	longest := strings.Repeat("a.", 511)
	for _, test := range []struct {
		patterns []string
		yes, no  []string
	}{
		{nil, []string{"patient.created", "x", ""}, nil},
		{[]string{"*"}, []string{"patient.created", "x", ""}, nil},
		{[]string{"x", "*", "patient.*"}, []string{"patient.created", "x", "y"}, nil},
		{[]string{"patient.created"}, []string{"patient.created"}, []string{"patient.created.x", "patient", "Patient.created", "patient.create"}},
		{[]string{"patient.*"}, []string{"patient.created", "patient.a.b", "patient."}, []string{"patient", "patients.x", "a.patient.x"}},
		{[]string{"a.b.*", "a.*", "a.b.c", "a.b.c"}, []string{"a.b.c", "a.b.d", "a.x"}, []string{"a", "b"}},
		{[]string{"a.", "a.*", "a."}, []string{"a.", "a.b"}, []string{"a"}},
		// The relay's own events are for those alone who name them.
		{nil, []string{"walhook", "walhooks.x", "Walhook.x"}, []string{"walhook.alert.timeouts", "walhook."}},
		{[]string{"*", "a"}, []string{"walhook", "a"}, []string{"walhook.alert.timeouts"}},
		{[]string{"*", "walhook.alert.*", "*", "a"}, []string{"walhook.alert.timeouts", "a", "b"}, []string{"walhook.x"}},
		{[]string{"*", "walhook.x"}, []string{"walhook.x", "b"}, []string{"walhook.x.y"}},
		{[]string{"walhook.*"}, []string{"walhook.alert.timeouts", "walhook.x"}, []string{"walhook", "a"}},
		{[]string{longest + "*"}, []string{longest + "a", longest + strings.Repeat("b.", 5000)}, []string{longest[2:] + "x"}},
	} {
		table := route.New()
		require.NoError(t, table.Put(rule(1, `{}`, test.patterns...)))
		for _, eventType := range test.yes {
			require.Equal(t, []uuid.UUID{id(1)}, table.Match(nil, event(eventType, `{}`)), "%q for %q", test.patterns, eventType)
		}
		for _, eventType := range test.no {
			require.Empty(t, table.Match(nil, event(eventType, `{}`)), "%q for %q", test.patterns, eventType)
		}
	}
}

func TestTableRefusesEventTypes(t *testing.T) {
	for _, pattern := range []string{"", "patient*", "*.created", "a.*.b", "**", ".*", "*.*", "a.**", strings.Repeat("a", 1025)} {
		table := route.New()
		err := table.Put(rule(1, `{}`, "fine", pattern))
		require.ErrorContains(t, err, "event type \""+pattern[:min(len(pattern), 60)])
		require.Contains(t, err.Error(), id(1).String())
		require.Equal(t, 1, table.Len())
		require.Contains(t, err.Error(), table.Invalid()[id(1)])
		require.Empty(t, table.Match(nil, event("fine", `{}`)))
	}
}

func TestTableKeepsTenantsApart(t *testing.T) {
	table := route.New()
	for n, tenant := range []string{"", "a", "b"} {
		r := rule(n, `{}`, "x.*")
		r.Tenant = tenant
		require.NoError(t, table.Put(r))
	}
	e := event("x.y", `{}`)
	require.Equal(t, []uuid.UUID{id(0)}, table.Match(nil, e))
	e.Tenant = "b"
	require.Equal(t, []uuid.UUID{id(2)}, table.Match(nil, e))
	e.Tenant = "c"
	require.Empty(t, table.Match(nil, e))
}

func TestTableMatchOrdersAndAppends(t *testing.T) {
	table := route.New()
	for _, n := range []int{5, 300, 2, 70000, 4} {
		require.NoError(t, table.Put(rule(n, `{"a": 1}`, "x.y", "x.*")))
	}
	require.NoError(t, table.Put(rule(3, `{"a": [0, 1]}`, "*")))
	got := table.Match([]uuid.UUID{id(9), id(9)}, event("x.y", `{"a": 1.0}`))
	require.Equal(t, []uuid.UUID{id(9), id(9), id(2), id(3), id(4), id(5), id(300), id(70000)}, got)
}

func TestTableInactiveMatchesNothing(t *testing.T) {
	table := route.New()
	r := rule(1, `{}`)
	require.NoError(t, table.Put(r))
	r.Active = false
	require.NoError(t, table.Put(r))
	require.Empty(t, table.Match(nil, event("x", `{}`)))
	require.Equal(t, 1, table.Len())

	r.Filters = []byte(`{"a": {}}`)
	require.Error(t, table.Put(r), "an inactive rule is checked as well")
	require.Len(t, table.Invalid(), 1)
}

func TestTableInvalidRuleReplacesAndHeals(t *testing.T) {
	table := route.New()
	require.NoError(t, table.Put(rule(1, `{"a": 1}`)))
	require.NoError(t, table.Put(rule(2, `{"a": 1}`)))
	e := event("x", `{"a": 1}`)

	require.ErrorContains(t, table.Put(rule(1, `{"a": {"like": 1}}`)), `filter "a": unknown operator "like"`)
	require.Equal(t, []uuid.UUID{id(2)}, table.Match(nil, e))
	require.Equal(t, 2, table.Len())
	invalid := table.Invalid()
	require.Contains(t, invalid[id(1)], `"like"`)
	delete(invalid, id(1))
	require.Len(t, table.Invalid(), 1, "the map is the caller's")

	require.NoError(t, table.Put(rule(1, `{"a": 1}`)))
	require.Equal(t, []uuid.UUID{id(1), id(2)}, table.Match(nil, e))
	require.Empty(t, table.Invalid())

	require.Error(t, table.Put(rule(1, `[]`)))
	table.Delete(id(1))
	require.Empty(t, table.Invalid())
	require.Equal(t, 1, table.Len())
}

func TestTableForgetsWhatIsDeleted(t *testing.T) {
	table := route.New()
	for n := range 500 {
		require.NoError(t, table.Put(rule(n, fmt.Sprintf(`{"a": %d, "b": [%d, "x"], "c_min": 1}`, n%7, n), fmt.Sprint("t", n%5), "p.*")))
	}
	require.NotZero(t, table.Footprint())
	for n := range 500 {
		table.Delete(id((n * 7) % 500))
		table.Delete(id(1000 + n))
	}
	require.Zero(t, table.Len())
	require.Zero(t, table.Footprint())
	require.Empty(t, table.Match(nil, event("p.x", `{"a": 1, "b": "x", "c": 2}`)))
}

// Two operands that one float64 stands for share one entry of the index, and only one of them matches.
func TestTableIndexedNumbersStayExact(t *testing.T) {
	table := route.New()
	require.NoError(t, table.Put(rule(1, `{"n": 9007199254740992}`)))
	require.NoError(t, table.Put(rule(2, `{"n": 9007199254740993}`)))
	require.NoError(t, table.Put(rule(3, `{"n": [9007199254740993, 9007199254740992]}`)))
	require.NoError(t, table.Put(rule(4, `{"n": -0.0}`)))
	require.Equal(t, []uuid.UUID{id(1), id(3)}, table.Match(nil, event("x", `{"n": 9007199254740992.0}`)))
	require.Equal(t, []uuid.UUID{id(2), id(3)}, table.Match(nil, event("x", `{"n": 9007199254740993}`)))
	require.Equal(t, []uuid.UUID{id(4)}, table.Match(nil, event("x", `{"n": 0}`)))
	for n := 1; n <= 4; n++ {
		table.Delete(id(n))
	}
	require.Zero(t, table.Footprint())
}

// A type that a subscription names twice counts once, also when others come and go around it.
func TestTableTypeNamedTwice(t *testing.T) {
	table := route.New()
	require.NoError(t, table.Put(rule(1, `{}`, "a")))
	require.NoError(t, table.Put(rule(2, `{}`, "a", "b", "a")))
	table.Delete(id(1))
	require.NoError(t, table.Put(rule(3, `{}`, "a")))
	table.Delete(id(2))
	require.Equal(t, []uuid.UUID{id(3)}, table.Match(nil, event("a", `{}`)))
}

// More fields and values than the index takes are found without it.
func TestTableBeyondTheIndexLimits(t *testing.T) {
	table := route.New()
	var values []string
	for n := range 40 {
		values = append(values, fmt.Sprint(n))
	}
	for n := range 600 {
		require.NoError(t, table.Put(rule(n, fmt.Sprintf(`{"f%d": 1}`, n))))
	}
	require.NoError(t, table.Put(rule(1000, `{"v": [`+strings.Join(values, ",")+`]}`)))
	for _, n := range []int{0, 255, 256, 599} {
		require.Equal(t, []uuid.UUID{id(n), id(1000)}, table.Match(nil, event("x", fmt.Sprintf(`{"f%d": 1, "v": 39}`, n))))
	}
}

// A rule's strings may be part of a buffer that is used again.
func TestTableKeepsNothingOfTheRule(t *testing.T) {
	table := route.New()
	types := []string{"a.b"}
	filters := []byte(`{"a": "x"}`)
	require.NoError(t, table.Put(delivery.Rule{SubscriptionID: id(1), EventTypes: types, Filters: filters, Active: true}))
	types[0] = "c.d"
	copy(filters, `{"b": "y"}`)
	require.Equal(t, []uuid.UUID{id(1)}, table.Match(nil, event("a.b", `{"a": "x"}`)))
}

func TestTableMatchAllocatesNothing(t *testing.T) {
	table := route.New()
	for n := range 2000 {
		require.NoError(t, table.Put(rule(n, fmt.Sprintf(`{"tenant_id": %d, "d.e": "x"}`, n), "a.b", "a.*")))
		require.NoError(t, table.Put(rule(10_000+n, fmt.Sprintf(`{"amount_min": %d}`, n+1000), "a.b")))
	}
	none := event("a.b", `{"tenant_id": 5000, "amount": 12.50, "name": "Ann", "d": {"e": "y", "f": [1, 2]}, "items": [{"a": 1}]}`)
	some := event("a.b", `{"tenant_id": 17, "amount": 1002, "name": "Ann", "d": {"e": "x", "f": [1, 2]}, "items": [{"a": 1}]}`)
	dst := make([]uuid.UUID, 0, 100)
	require.Empty(t, table.Match(dst, none))
	require.Equal(t, []uuid.UUID{id(17), id(10_000), id(10_001), id(10_002)}, table.Match(dst, some))
	require.Zero(t, testing.AllocsPerRun(10, func() { table.Match(dst, none) }))
	require.Zero(t, testing.AllocsPerRun(10, func() { table.Match(dst, some) }))
}

// The index hangs subscriptions under the field that tells them apart, wherever it stands in the filter.
func TestTableIndexesTheFieldThatSelects(t *testing.T) {
	for _, format := range []string{
		`{"department": "d%[1]d", "account_id": %[2]d}`,
		`{"account_id": %[2]d, "department": "d%[1]d"}`,
		`{"active": true, "amount_min": %[2]d, "department": ["d%[1]d", "all"], "ref.account": [%[2]d, "%[2]d"]}`,
	} {
		table := route.New()
		for n := range 5000 {
			require.NoError(t, table.Put(rule(n, fmt.Sprintf(format, n%5, n), "visit.*")))
		}
		require.Less(t, table.LongestList(), 20, format)
	}
}

// A payload with thousands of fields leaves nothing behind that the next one could be mistaken for.
func TestTableMatchAfterAWidePayload(t *testing.T) {
	table := route.New()
	require.NoError(t, table.Put(rule(1, `{"f9999": 1}`)))
	fields := make([]string, 10_000)
	for i := range fields {
		fields[i] = fmt.Sprintf(`"f%d": 1`, i)
	}
	require.Equal(t, []uuid.UUID{id(1)}, table.Match(nil, event("x", "{"+strings.Join(fields, ",")+"}")))
	require.Empty(t, table.Match(nil, event("x", `{"f0": 1}`)))
	require.Empty(t, table.Match(nil, event("x", ``)))
	require.Equal(t, []uuid.UUID{id(1)}, table.Match(nil, event("x", `{"f9999": 1}`)))
}
