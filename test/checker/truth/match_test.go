package truth

import (
	"encoding/json"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/checker/history"
)

func TestMatchesType(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		patterns []string
		name     string
		want     bool
	}{
		{nil, "patient.created", true},
		{[]string{}, "patient.created", true},
		{[]string{"*"}, "patient.created", true},
		{[]string{"patient.created"}, "patient.created", true},
		{[]string{"patient.created"}, "patient.created.again", false},
		{[]string{"patient.created"}, "patient", false},
		{[]string{"Patient.created"}, "patient.created", false},
		{[]string{"patient.*"}, "patient.created", true},
		{[]string{"patient.*"}, "patient.a.b", true},
		{[]string{"patient.*"}, "patient", false},
		{[]string{"patient.*"}, "patients.created", false},
		{[]string{"patient.a.*"}, "patient.a.b", true},
		{[]string{"patient.a.*"}, "patient.b", false},
		{[]string{"x", "patient.*", "y"}, "patient.b", true},
		{nil, "walhook.alert.timeouts", false},
		{[]string{"*"}, "walhook.alert.timeouts", false},
		{[]string{"*", "walhook.*"}, "walhook.alert.timeouts", true},
		{[]string{"walhook.alert.*"}, "walhook.alert.timeouts", true},
		{[]string{"walhook.alert.timeouts"}, "walhook.alert.timeouts", true},
		{nil, "walhook", true},
	} {
		s := &history.Subscription{Active: true, EventTypes: c.patterns, Filters: json.RawMessage(`{}`)}
		require.Equal(t, c.want, Matches(s, &history.Event{Type: c.name, Payload: json.RawMessage(`{}`)}), "%v %s", c.patterns, c.name)
	}
}

func TestMatchesTenantAndActive(t *testing.T) {
	t.Parallel()
	e := &history.Event{Type: "a", Tenant: "t", Payload: json.RawMessage(`{}`)}
	s := history.Subscription{Active: true, Tenant: "t", Filters: json.RawMessage(`{}`)}
	require.True(t, Matches(&s, e))
	s.Active = false
	require.False(t, Matches(&s, e))
	s.Active, s.Tenant = true, ""
	require.False(t, Matches(&s, e))
}

const patient = `{"department": "cardiology", "amount": 1000, "big": 9007199254740993, "exact": 0.1, "zero": -0.0, "vip": true, "gone": null,
	"text": "1", "tags": ["a"], "amount_min": 5, "patient": {"age": 40, "name": {"last": "Doe"}}}`

func TestMatchesFilters(t *testing.T) {
	t.Parallel()
	for filters, want := range map[string]bool{
		`{}`:                             true,
		`{"department": "cardiology"}`:   true,
		`{"department": "Cardiology"}`:   false,
		`{"department": "x"}`:            false,
		`{"vip": true}`:                  true,
		`{"vip": false}`:                 false,
		`{"vip": "true"}`:                false,
		`{"gone": null}`:                 true,
		`{"vip": null}`:                  false,
		`{"gone": false}`:                false,
		`{"amount": 1000}`:               true,
		`{"amount": 1000.0}`:             true,
		`{"amount": 1e3}`:                true,
		`{"amount": 1000.0000000000001}`: false,
		`{"big": 9007199254740993}`:      true,
		`{"big": 9007199254740992}`:      false, // the same as a float64
		`{"exact": 1e-1}`:                true,
		`{"zero": 0}`:                    true,
		`{"text": 1}`:                    false,
		`{"amount": "1000"}`:             false,
		`{"tags": "a"}`:                  false,
		`{"nothing": "a"}`:               false,

		`{"department": "cardiology", "vip": true}`:  true,
		`{"department": "cardiology", "vip": false}`: false,

		`{"department": ["oncology", "cardiology"]}`: true,
		`{"department": ["oncology", 1, null]}`:      false,
		`{"amount": ["x", 1e3]}`:                     true,
		`{"gone": [null]}`:                           true,
		`{"department": []}`:                         false,

		`{"patient.age": 40}`:           true,
		`{"patient.age": 41}`:           false,
		`{"patient.name.last": "Doe"}`:  true,
		`{"patient.name.first": "Doe"}`: false,
		`{"department.name": "x"}`:      false,
		`{"tags.0": "a"}`:               false,

		`{"amount_min": 1000}`:                    true,
		`{"amount_min": 1000.0001}`:               false,
		`{"amount_max": 1e3}`:                     true,
		`{"amount_max": 999}`:                     false,
		`{"amount_min": 999, "amount_max": 1001}`: true,
		`{"text_min": 0}`:                         false,
		`{"nothing_max": 9}`:                      false,
		`{"patient.age_min": 40}`:                 true,
		`{"patient.age_max": 39}`:                 false,
		`{"amount_min": {"eq": 5}}`:               true,
		`{"amount_min": {"eq": 1000}}`:            false,

		`{"amount": {"eq": 1e3}}`:                     true,
		`{"amount": {"ne": 1e3}}`:                     false,
		`{"amount": {"ne": 1001}}`:                    true,
		`{"department": {"ne": "x"}}`:                 true,
		`{"gone": {"ne": null}}`:                      false,
		`{"vip": {"ne": null}}`:                       true,
		`{"department": {"in": ["x", "cardiology"]}}`: true,
		`{"department": {"in": ["x"]}}`:               false,
		`{"amount": {"gt": 999.9}}`:                   true,
		`{"amount": {"gt": 1000}}`:                    false,
		`{"amount": {"gte": 1000}}`:                   true,
		`{"amount": {"gte": 1000.1}}`:                 false,
		`{"amount": {"lt": 1000.1}}`:                  true,
		`{"amount": {"lt": 1000}}`:                    false,
		`{"amount": {"lte": 1000}}`:                   true,
		`{"amount": {"lte": 999}}`:                    false,
		`{"amount": {"gt": 1, "lt": 2000}}`:           true,
		`{"amount": {"gt": 1, "lt": 2}}`:              false,
		`{"department": {"gt": 1}}`:                   false,
		`{"department": {"gt": "cardio"}}`:            true,
		`{"department": {"lt": "cardio"}}`:            false,
		`{"department": {"gte": "cardiology"}}`:       true,
		`{"amount": {"gte": "1"}}`:                    false,
		`{"amount": {"exists": true}}`:                true,
		`{"amount": {"exists": false}}`:               false,
		`{"nothing": {"exists": false}}`:              true,
		`{"nothing": {"exists": true}}`:               false,
		`{"gone": {"exists": true}}`:                  true,
		`{"patient.name": {"exists": true}}`:          true,
		`{"department": {"prefix": "card"}}`:          true,
		`{"department": {"prefix": "x"}}`:             false,
		`{"amount": {"prefix": "1"}}`:                 false,
	} {
		require.Equal(t, want, matchesFilters(json.RawMessage(filters), json.RawMessage(patient)), filters)
	}
}

// An invalid filter matches nothing, whatever the others say and whether or not the field is there.
func TestInvalidFiltersMatchNothing(t *testing.T) {
	t.Parallel()
	for _, filters := range []string{
		`[]`, `null`, ``,
		`{"amount": {"like": 1}}`, `{"amount": {"eq": 1000, "like": 1}}`, `{"nothing": {"exists": false, "like": 1}}`, `{"patient": {"age": 40}}`,
		`{"amount": {"eq": {}}}`, `{"amount": {"ne": []}}`, `{"amount": {"ne": {}}}`, `{"amount": [1000, {}]}`, `{"amount": [1000, [1000]]}`,
		`{"department": {"in": "cardiology"}}`, `{"amount_min": "1"}`, `{"amount": {"lt": null}}`, `{"amount": {"exists": 1}}`,
		`{"department": {"prefix": 1}}`, `{"amount_min": "1"}`, `{"amount_max": [1000]}`, `{"amount_max": null}`,
	} {
		require.False(t, matchesFilters(json.RawMessage(filters), json.RawMessage(patient)), filters)
	}
}

// What is no object has no fields.
func TestPayloadsThatAreNoObjects(t *testing.T) {
	t.Parallel()
	for _, payload := range []string{`1`, `"a"`, `null`, `[{"a": 1}]`} {
		require.True(t, matchesFilters(json.RawMessage(`{}`), json.RawMessage(payload)))
		require.False(t, matchesFilters(json.RawMessage(`{"a": 1}`), json.RawMessage(payload)))
		require.True(t, matchesFilters(json.RawMessage(`{"a": {"exists": false}}`), json.RawMessage(payload)))
	}
}

func TestExpect(t *testing.T) {
	t.Parallel()
	a, b := uuid.MustParse(id1), uuid.MustParse("0199a0b1-0000-7000-8000-000000000002")
	put := func(id uuid.UUID, types ...string) history.Item {
		return history.Item{Subscription: &history.Subscription{ID: id, Active: true, EventTypes: types, Filters: json.RawMessage(`{}`)}}
	}
	send := func(name string) history.Item {
		return history.Item{Event: &history.Event{ID: uuid.New(), Type: name, Payload: json.RawMessage(`{}`)}}
	}
	txs := []history.Tx{
		{LSN: 10, Items: []history.Item{send("x"), put(b), send("x"), put(a, "y"), send("x"), send("y")}},
		{LSN: 20, Items: []history.Item{send("y"), put(a, "x"), send("y")}},
		{LSN: 30, Items: []history.Item{{Deleted: &b}, send("y"), send("x"), {Deleted: &b}, put(b), send("y")}},
	}
	want := func(tx, index int, id uuid.UUID) Expected {
		return Expected{LSN: txs[tx].LSN, Index: index, Event: txs[tx].Items[index].Event, Subscription: id}
	}
	require.Equal(t, []Expected{
		want(0, 2, b), want(0, 4, b), want(0, 5, a), want(0, 5, b),
		want(1, 0, a), want(1, 0, b), want(1, 2, b),
		want(2, 2, a), want(2, 5, b),
	}, Expect(txs))
}
