package truth

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/checker/history"
)

const id1 = "0199a0b1-0000-7000-8000-000000000001"

func event(e history.Event) line {
	e.ID = uuid.MustParse(id1)
	return line{kind: item, item: history.Item{Event: &e}}
}

var made = time.Date(2026, 11, 22, 10, 11, 12, 0, time.UTC)

const eventTail = " source[text]:null correlation_id[text]:null headers[jsonb]:'{}' created_at[timestamp with time zone]:'2026-11-22 10:11:12+00'"

// subscriptionLine writes a row of outbox.subscriptions with some columns replaced.
func subscriptionLine(action string, replace ...string) string {
	return "table outbox.subscriptions: " + action + subscriptionColumns(replace...)
}

func subscriptionColumns(replace ...string) string {
	columns := " id[uuid]:'" + id1 + "' tenant[text]:'t' name[text]:'n' description[text]:'' url[text]:'http://a/b' event_types[text[]]:'{a.b,\"c d\",x.*}'" +
		" filters[jsonb]:'{\"a\": 1}' headers[jsonb]:'{}' secret[text]:null previous_secret[text]:null previous_secret_expires_at[timestamp with time zone]:null" +
		" signature[text]:'sha256' payload_format[text]:'envelope' payload_version[integer]:1 max_retries[integer]:3 retry_delay[interval]:'00:01:00'" +
		" timeout[interval]:'00:00:02.5' ordering[text]:'none' max_in_flight[integer]:16 rate_limit[integer]:null batch_size[integer]:1" +
		" batch_wait[interval]:'00:00:00' is_active[boolean]:true updated_at[timestamp with time zone]:'2026-11-22 10:11:12+00' status[text]:'valid' status_reason[text]:null revision[integer]:1"
	return strings.NewReplacer(replace...).Replace(columns)
}

func subscription(change func(*history.Subscription)) line {
	s := &history.Subscription{
		ID: uuid.MustParse(id1), Tenant: "t", URL: "http://a/b", EventTypes: []string{"a.b", "c d", "x.*"}, Filters: json.RawMessage(`{"a": 1}`),
		Signature: "sha256", Format: "envelope", BatchSize: 1, Ordering: "none", MaxRetries: 3, RetryDelayMS: 60_000, TimeoutMS: 2500, Active: true, ChangedAt: made,
	}
	if change != nil {
		change(s)
	}
	return line{kind: item, item: history.Item{Subscription: s}}
}

func emitted(content string) string {
	return fmt.Sprintf("message: transactional: 1 prefix: outbox, sz: %d content:%s", len(content), content)
}

// lines are what test_decoding writes and what it means.
var lines = map[string]line{
	"BEGIN 1234": {kind: begin, xid: 1234},
	"COMMIT 4294967295 (at 2026-11-22 10:11:12.12345+00)": {kind: commit, xid: 4294967295, at: time.Date(2026, 11, 22, 10, 11, 12, 123450000, time.UTC)},
	"COMMIT 7 (at 2026-11-22 10:11:12+00)":                {kind: commit, xid: 7, at: time.Date(2026, 11, 22, 10, 11, 12, 0, time.UTC)},

	"table outbox.events_p20261122: INSERT: id[uuid]:'" + id1 + "' type[text]:'a.b' payload[jsonb]:'{\"n\": 1}' key[text]:null tenant[text]:''" + eventTail: event(
		history.Event{Type: "a.b", Payload: json.RawMessage(`{"n": 1}`), CreatedAt: made}),
	// Everything that could be mistaken for the end of a value is inside one, and names may be quoted.
	"table outbox.\"events_\"\" x\": INSERT: tenant[text]:'it''s \nnew-tuple: ] \"x' \"id\"[uuid]:'" + id1 + "' \"ty pe\"[\"a b\".\"c\"]:B'101' type[text]:'''' key[text]:' key[text]:null' payload[jsonb]:'\"''\"'" + eventTail: event(
		history.Event{Type: "'", Tenant: "it's \nnew-tuple: ] \"x", Key: " key[text]:null", Payload: json.RawMessage(`"'"`), CreatedAt: made}),
	"table outbox.events_default: DELETE: id[uuid]:'" + id1 + "'":             {},
	"table outbox.events_default: DELETE: (no-tuple-data)":                    {},
	"table outbox.events_default: UPDATE: id[uuid]:'" + id1 + "' type[text]:": {},
	"table outbox.events_default, outbox.events_p1: TRUNCATE: (no-flags)":     {},
	"table outbox.emitted_events_default: INSERT: garbage":                    {},
	"table outbox.event_types: INSERT: garbage":                               {},
	"table public.events: INSERT: garbage":                                    {},
	"table public.\"outbox.events\": INSERT: garbage":                         {},

	emitted(`{"id": "` + id1 + `", "key": "k", "type": "a.b", "tenant": "t", "payload": {"x": [1.00, " content:"]}, "source": null, "created_at": "2026-11-22T10:11:12.000000Z"}`): event(
		history.Event{Type: "a.b", Tenant: "t", Key: "k", Payload: json.RawMessage(`{"x": [1.00, " content:"]}`), Emitted: true, CreatedAt: made}),
	emitted(`{"id": "` + id1 + `", "key": null, "type": "a", "tenant": "", "payload": null}`): event(
		history.Event{Type: "a", Payload: json.RawMessage(`null`), Emitted: true}),
	"message: transactional: 0 prefix: outbox, sz: 1 content:x":  {},
	"message: transactional: 1 prefix: outbox2, sz: 1 content:x": {},

	subscriptionLine("INSERT:"): subscription(nil),
	subscriptionLine("INSERT:", " secret[text]:null", " secret[text]:'s''x'", "boolean]:true", "boolean]:false", "{a.b,\"c d\",x.*}", "{}"): subscription(
		func(s *history.Subscription) { s.Secret, s.Active, s.EventTypes = "s'x", false, []string{} }),
	subscriptionLine("UPDATE:", "previous_secret[text]:null", "previous_secret[text]:'old'", "zone]:null", "zone]:'2026-11-22 10:11:12.5+00'",
		"sha256", "github", "batch_size[integer]:1", "batch_size[integer]:20"): subscription(func(s *history.Subscription) {
		s.PreviousSecret, s.Signature, s.BatchSize = "old", "github", 20
		s.PreviousExpires = time.Date(2026, 11, 22, 10, 11, 12, 500_000_000, time.UTC)
	}),
	subscriptionLine("UPDATE:", "00:00:02.5", "-1 days +24:04:00"): subscription(func(s *history.Subscription) { s.TimeoutMS = 240000 }),
	subscriptionLine("UPDATE:", "00:00:02.5", "1 mon -29 days -23:59:59.9999"): subscription(
		func(s *history.Subscription) { s.TimeoutMS = 1 }),
	subscriptionLine("UPDATE: old-key:"+subscriptionColumns()+" new-tuple:", "'{\"a\": 1}'", "unchanged-toast-datum", "envelope", "raw"): subscription(
		func(s *history.Subscription) { s.Format = "raw" }),
	subscriptionLine("DELETE:"): {kind: item, item: history.Item{Deleted: ptr(uuid.MustParse(id1))}},
}

func ptr[T any](v T) *T { return &v }

func TestParse(t *testing.T) {
	t.Parallel()
	for text, want := range lines {
		got, err := parseLine(text)
		require.NoError(t, err)
		require.Equal(t, want, got, text)
	}
}

// garbage has something wrong in a place where the parser has to look.
var garbage = map[string]string{
	"":                       `unknown word ""`,
	"opening a streamed":     `unknown word "opening"`,
	"BEGIN":                  "invalid syntax",
	"BEGIN 99999999999":      "value out of range",
	"COMMIT x (at":           "invalid syntax",
	"COMMIT 1 (at yesterday": "cannot parse",
	"table ":                 "a name is missing",
	"table outbox: INSERT:":  "not qualified",
	"table outbox.\"events":  "not closed",
	"table outbox.events: INSERT: (no-tuple-data)":                          "data is missing",
	"table outbox.events: INSERT: id":                                       "type of column id is missing",
	"table outbox.events: INSERT: id[uuid]:":                                "column id: the value is missing",
	"table outbox.events: INSERT: id[uuid]:'x":                              "not closed",
	"table outbox.events: INSERT: id[uuid]:'x'x":                            "a column is missing after 1 others",
	"table outbox.events: INSERT: id[uuid]:null":                            "column id: is null",
	"table outbox.events: INSERT: id[uuid]:'" + id1 + "'":                   "column type: is missing",
	"table outbox.events: INSERT: id[uuid]:unchanged-toast-datum":           "column id was left alone",
	"table outbox.subscriptions: UPDATE: old-key: id[uuid]:'x'":             "a column is missing after 1 others",
	"table outbox.subscriptions: TRUNCATE: (no-flags)":                      "unknown change of a subscription",
	subscriptionLine("INSERT:", "boolean]:true", "boolean]:'t'"):            "not a boolean",
	subscriptionLine("INSERT:", "max_retries[integer]:3", "max_retries[]:"): "column max_retries: the value is missing",
	subscriptionLine("INSERT:", "x.*}", "x.*"):                              "column event_types",
	subscriptionLine("INSERT:", "00:00:02.5", "soon"):                       "column timeout",
	"message: transactional: 1 prefix: outbox, sz: 2 content:x":             "the content has 1 bytes",
	emitted("x"):                     "read the emitted event",
	emitted(`{"id": "` + id1 + `"}`): "lacks",
}

func TestParseRefusesGarbage(t *testing.T) {
	t.Parallel()
	for text, want := range garbage {
		_, err := parseLine(text)
		require.ErrorIs(t, err, errOutput, text)
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, fmt.Sprintf("%.200q", text), "the line is named")
	}
}

func TestTransactionsAreWhole(t *testing.T) {
	t.Parallel()
	deleted := subscriptionLine("DELETE:")
	var whole transaction
	for i, text := range []string{"BEGIN 5", deleted, "table public.x: INSERT: y", "COMMIT 5 (at 2026-11-22 10:11:12+00)"} {
		complete, err := whole.add(text)
		require.NoError(t, err)
		require.Equal(t, i == 3, complete)
	}
	require.Equal(t, uint32(5), whole.tx.XID)
	require.Len(t, whole.tx.Items, 1)

	for _, broken := range [][]string{
		{deleted}, {"COMMIT 5 (at 2026-11-22 10:11:12+00)"}, {"BEGIN 5", "BEGIN 6"}, {"BEGIN 5", "COMMIT 6 (at 2026-11-22 10:11:12+00)"},
	} {
		var tx transaction
		var err error
		for _, text := range broken {
			require.NoError(t, err)
			_, err = tx.add(text)
		}
		require.ErrorIs(t, err, errOutput, broken)
	}
}

func TestCopyDataIsChecked(t *testing.T) {
	t.Parallel()
	for _, body := range []string{"", "w", "k1234567812345678", "k1234567812345678xx", "x1234567812345678123456781234"} {
		_, err := parseCopyData([]byte(body))
		require.ErrorIs(t, err, errOutput)
	}
}

// FuzzParse looks for a panic, and for a value that does not come out as it was.
func FuzzParse(f *testing.F) {
	for text := range lines {
		f.Add(text, "a")
	}
	for text := range garbage {
		f.Add(text, "it's ' ''")
	}
	f.Fuzz(func(t *testing.T, text, value string) {
		if _, err := parseLine(text); err != nil {
			require.ErrorIs(t, err, errOutput)
		}
		quoted := "'" + strings.ReplaceAll(value, "'", "''") + "'"
		l, err := parseLine("table outbox.events: INSERT: id[uuid]:'" + id1 + "' type[text]:" + quoted + " key[text]:null payload[jsonb]:" + quoted + " tenant[text]:" + quoted + eventTail)
		require.NoError(t, err)
		require.Equal(t, event(history.Event{Type: value, Tenant: value, Payload: json.RawMessage(value), CreatedAt: made}), l)
	})
}
