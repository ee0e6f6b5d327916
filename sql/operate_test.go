package sql_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// refused runs a statement that must fail, and say so.
func refused(t *testing.T, db *pgxpool.Pool, says, statement string, args ...any) {
	t.Helper()
	_, err := db.Exec(t.Context(), statement, args...)
	require.ErrorContains(t, err, says, statement)
}

func TestRotateSecret(t *testing.T) {
	t.Parallel()
	db := connect(t)
	id := subscribe(t, db)
	secrets := func() string {
		return value[string](t, db, `SELECT concat_ws('|', secret, coalesce(previous_secret, '-'), CASE
			WHEN previous_secret_expires_at IS NULL THEN 'never' ELSE extract(epoch FROM previous_secret_expires_at - updated_at)::int::text END) FROM outbox.subscriptions`)
	}
	exec(t, db, "SELECT outbox.rotate_secret($1, 'one')", id)
	require.Equal(t, "one|-|never", secrets(), "there was none before")
	exec(t, db, "SELECT outbox.rotate_secret($1, 'two')", id)
	require.Equal(t, "two|one|86400", secrets())
	exec(t, db, "SELECT outbox.rotate_secret($1, 'three', '1 minute')", id)
	require.Equal(t, "three|two|60", secrets())
	exec(t, db, "SELECT outbox.rotate_secret($1, 'four', '0')", id)
	require.Equal(t, "four|-|never", secrets(), "the old one ends at once")

	refused(t, db, "there is no subscription 01000000-0000-0000-0000-000000000000", "SELECT outbox.rotate_secret($1, 'x')", uuid.UUID{1})
	refused(t, db, "already has", "SELECT outbox.rotate_secret($1, 'four')", id)
	refused(t, db, "overlap is -00:00:01", "SELECT outbox.rotate_secret($1, 'five', '-1 s')", id)
	refused(t, db, "overlap is null", "SELECT outbox.rotate_secret($1, 'five', NULL)", id)
	refused(t, db, "new_secret is null", "SELECT outbox.rotate_secret($1, NULL)", id)
	require.Equal(t, "four|-|never", secrets())
}

// Another receiver, or one that must expect another secret, has to agree anew.
func TestVerificationEnds(t *testing.T) {
	t.Parallel()
	db := connect(t)
	id := subscribe(t, db, "verification", "'slack'", "verified_at", "now()", "verification_error", "'no'")
	verified := func() bool {
		return value[bool](t, db, "SELECT verified_at IS NOT NULL FROM outbox.subscriptions WHERE verification_error IS NULL")
	}
	require.False(t, verified(), "only the relay can know")
	revision := value[int](t, db, "SELECT revision FROM outbox.subscriptions")
	for change, still := range map[string]bool{
		"url = 'http://127.0.0.1'":     false,
		"secret = 'x'":                 true,
		"verification = 'cloudevents'": false,
		"name = 'x', max_retries = 1":  true,
	} {
		exec(t, db, "UPDATE outbox.subscriptions SET verified_at = NULL, verification_error = 'earlier'")
		exec(t, db, "UPDATE outbox.subscriptions SET verified_at = now(), verification_error = NULL")
		require.True(t, verified())
		exec(t, db, "UPDATE outbox.subscriptions SET "+change)
		require.Equal(t, still, verified(), change)
	}
	require.Equal(t, revision+4, value[int](t, db, "SELECT revision FROM outbox.subscriptions"), "what the relay finds is no revision")
	exec(t, db, "UPDATE outbox.subscriptions SET verified_at = now()")
	exec(t, db, "SELECT outbox.rotate_secret($1, 'y')", id)
	require.True(t, verified())
}

func TestSendTest(t *testing.T) {
	t.Parallel()
	db := connect(t)
	id := subscribe(t, db, "tenant", "'t'", "event_types", "'{other}'", "max_retries", "10")
	delivery := value[uuid.UUID](t, db, "SELECT outbox.send_test($1)", id)
	require.Equal(t, `webhook.test|{"test": true}|t|true`, value[string](t, db, `SELECT concat_ws('|', d.type, d.payload, d.tenant,
			(d.next_attempt_at <= now() AND d.round >= s.max_retries AND d.attempts = 0 AND d.id = outbox.delivery_id(d.event_id, s.id))::text)
		FROM outbox.deliveries d JOIN outbox.subscriptions s ON s.id = d.subscription_id WHERE d.id = $1`, delivery))
	require.Equal(t, 1, value[int](t, db, `SELECT count(*) FROM outbox.emitted_events e JOIN outbox.deliveries d ON d.event_id = e.id
		WHERE e.only_for = $1 AND e.type = 'webhook.test' AND e.payload = '{"test": true}' AND e.tenant = 't'`, id))
	require.Zero(t, value[int](t, db, "SELECT count(*) FROM outbox.events"))
	delivery = value[uuid.UUID](t, db, `SELECT outbox.send_test($1, 'a.b', '[1.10]')`, id)
	require.Equal(t, "a.b [1.10]", value[string](t, db, "SELECT type || ' ' || payload FROM outbox.deliveries WHERE id = $1", delivery))

	refused(t, db, "there is no subscription 01000000-0000-0000-0000-000000000000", "SELECT outbox.send_test($1)", uuid.UUID{1})
	refused(t, db, "'a b' is not a dotted name", "SELECT outbox.send_test($1, 'a b')", id)
	refused(t, db, "NULL is not a dotted name", "SELECT outbox.send_test($1, NULL)", id)
	refused(t, db, "more than 10 MB", "SELECT outbox.send_test($1, 'a', to_jsonb(repeat('x', 10485760)))", id)
	exec(t, db, "SELECT outbox.deactivate($1)", id)
	refused(t, db, "is not active: run outbox.activate('"+id.String()+"')", "SELECT outbox.send_test($1)", id)
	exec(t, db, "SELECT outbox.activate($1)", id)
	exec(t, db, "UPDATE outbox.subscriptions SET status = 'invalid', status_reason = 'the reason'")
	refused(t, db, "mend it first: the reason", "SELECT outbox.send_test($1)", id)
	exec(t, db, "UPDATE outbox.subscriptions SET verification = 'slack'")
	refused(t, db, "it has not been asked", "SELECT outbox.send_test($1)", id)
	require.Equal(t, 2, value[int](t, db, "SELECT count(*) FROM outbox.emitted_events"))
}

func TestReplayIsRequested(t *testing.T) {
	t.Parallel()
	db := connect(t)
	listener, err := db.Acquire(t.Context())
	require.NoError(t, err)
	defer listener.Release()
	_, err = listener.Exec(t.Context(), "LISTEN walhook")
	require.NoError(t, err)
	id := subscribe(t, db)
	before := value[string](t, db, "SELECT pg_current_wal_insert_lsn()::text")
	replay := value[uuid.UUID](t, db, "SELECT outbox.replay($1, now() - interval '1 hour')", id)
	require.Equal(t, 1, value[int](t, db, `SELECT count(*) FROM outbox.replays WHERE id = $1 AND subscription_id = $2 AND state = 'waiting'
		AND NOT only_failed AND NOT backfill AND until = requested_at AND until - since = interval '1 hour' AND requested_lsn >= $3::text::pg_lsn`, replay, id, before))
	for {
		n, err := listener.Conn().WaitForNotification(t.Context())
		require.NoError(t, err)
		if n.Payload == "replay" {
			break
		}
	}
	require.Equal(t, 1, value[int](t, db, "SELECT revision FROM outbox.subscriptions"), "its row is touched, and that is no change")

	exec(t, db, "SELECT outbox.replay($1, '2020-01-01', '2020-01-02', true), outbox.replay($1, '2020-01-01', NULL, NULL), outbox.replay($1, '2020-01-01', now() + interval '10 s')", id)
	require.Equal(t, 1, value[int](t, db, "SELECT count(*) FROM outbox.replays WHERE only_failed AND until = '2020-01-02'"))
	for call, says := range map[string]string{
		"$1, NULL":                                      "since is null",
		"$1, '-infinity'":                               "since is -infinity",
		"$1, now() - interval '1 h', 'infinity'":        "until is infinity",
		"$1, now() + interval '1 h'":                    "lies in the future",
		"$1, '2020-01-01', now() + interval '1 h'":      "lies in the future",
		"$1, '2020-01-02', '2020-01-01'":                "must be before until",
		"$1, '2020-01-02', '2020-01-02'":                "must be before until",
		"outbox.uuid_floor('2020-01-01'), '2020-01-01'": "there is no subscription 016f5e66-e800-0000-0000-000000000000",
	} {
		_, err := db.Exec(t.Context(), "SELECT outbox.replay("+call+") FROM (SELECT $1::uuid) AS unused", id)
		require.ErrorContains(t, err, says, call)
	}
	require.Equal(t, 4, value[int](t, db, "SELECT count(*) FROM outbox.replays"))

	exec(t, db, "SELECT outbox.cancel_replay($1)", replay)
	require.Equal(t, "failed cancelled", value[string](t, db, "SELECT state || ' ' || error FROM outbox.replays WHERE id = $1 AND finished_at IS NOT NULL", replay))
	refused(t, db, "is over, its state is failed", "SELECT outbox.cancel_replay($1)", replay)
	refused(t, db, "there is no replay 01000000-0000-0000-0000-000000000000", "SELECT outbox.cancel_replay($1)", uuid.UUID{1})
}

// A subscription may begin with the past. Its row says so once.
func TestBackfillIsRequested(t *testing.T) {
	t.Parallel()
	db := connect(t)
	id := subscribe(t, db, "backfill_from", "'2020-01-01'")
	subscribe(t, db)
	const requests = "SELECT count(*) FROM outbox.replays WHERE subscription_id = $1 AND since = '2020-01-01' AND until IS NULL AND backfill AND state = 'waiting'"
	require.Equal(t, 1, value[int](t, db, requests, id))
	exec(t, db, "UPDATE outbox.subscriptions SET name = 'other'")
	exec(t, db, "UPDATE outbox.subscriptions SET backfill_from = NULL")
	require.Equal(t, 1, value[int](t, db, "SELECT count(*) FROM outbox.replays"))
}

func TestEventTypes(t *testing.T) {
	t.Parallel()
	db := connect(t)
	exec(t, db, `INSERT INTO outbox.event_types (name, number, description, schema) VALUES ('a.b', 1, 'd', '{"type": "object"}'), ('c', 0, '', 'true')`)
	exec(t, db, "INSERT INTO outbox.event_types (name) VALUES ('d'), ('e')")
	for values, constraint := range map[string]string{
		"'a.b', NULL, '', NULL":               "event_types_pkey",
		"'x', 1, '', NULL":                    "event_types_number_is_unique",
		"'x', -1, '', NULL":                   "event_types_number_is_not_negative",
		"'x y', NULL, '', NULL":               "event_types_name_is_a_dotted_name",
		"'x.*', NULL, '', NULL":               "event_types_name_is_a_dotted_name",
		"'x', NULL, repeat('d', 10241), NULL": "event_types_description_is_at_most_10_kb",
		"'x', NULL, '', '[]'":                 "event_types_schema_is_an_object_or_boolean",
		"'x', NULL, '', '\"object\"'":         "event_types_schema_is_an_object_or_boolean",
		"'x', NULL, '', jsonb_build_object('a', repeat('x', 1048576))": "event_types_schema_is_at_most_1_mb",
	} {
		refused(t, db, constraint, "INSERT INTO outbox.event_types (name, number, description, schema) VALUES ("+values+")")
	}
}

// called is what outbox.calls shows of an attempt.
type called struct {
	headers map[string]string
	payload string
}

// attempted publishes an event, writes down an attempt to give it to a subscription, and returns what the log shows.
// The event's id and the delivery's are E and D.
func attempted(t *testing.T, db *pgxpool.Pool, publish string, subscription uuid.UUID) called {
	t.Helper()
	event := value[uuid.UUID](t, db, "SELECT "+publish)
	exec(t, db, `INSERT INTO outbox.attempts (attempted_at, committed_at, delivery_id, event_id, subscription_id, revision, epoch, duration_us, attempt, status)
		SELECT '2024-01-02 03:04:05.6 UTC', '2024-01-01 00:00:00.000001 UTC', outbox.delivery_id($1, id), $1, id, revision, 1, 1, 2, 200
		FROM outbox.subscriptions WHERE id = $2`, event, subscription)
	var c called
	var text string
	require.NoError(t, db.QueryRow(t.Context(), `SELECT replace(request_headers::text, delivery_id::text, 'D'),
			replace(replace(payload::text, delivery_id::text, 'D'), event_id::text, 'E') FROM outbox.calls WHERE event_id = $1`, event).Scan(&text, &c.payload))
	require.NoError(t, json.Unmarshal([]byte(text), &c.headers))
	return c
}

func TestCallsShowEverySignature(t *testing.T) {
	t.Parallel()
	db := connect(t)
	exec(t, db, "INSERT INTO outbox.epochs (slot_name, epoch, version, host, pid) VALUES ('s', 1, '1.2.3', 'h', 1)")
	for signature, want := range map[string][2]map[string]string{ // what is sent without a secret, and what besides with one
		"none":   {},
		"sha256": {nil, {"X-Webhook-Signature": "sha256=[redacted]"}},
		"standard": {{"webhook-id": "D", "webhook-timestamp": "1704164645"},
			{"webhook-signature": "v1,[redacted]"}},
		"standard-ed25519": {{"webhook-id": "D", "webhook-timestamp": "1704164645"},
			{"webhook-signature": "v1a,[redacted]"}},
		"github":  {{"X-GitHub-Event": "a.b", "X-GitHub-Delivery": "D"}, {"X-Hub-Signature-256": "sha256=[redacted]"}},
		"stripe":  {nil, {"Stripe-Signature": "t=1704164645,v1=[redacted]"}},
		"shopify": {{"X-Shopify-Topic": "a.b", "X-Shopify-Webhook-Id": "D", "X-Shopify-Shop-Domain": "walhook", "X-Shopify-API-Version": "1"}, {"X-Shopify-Hmac-Sha256": "[redacted]"}},
		"slack":   {{"X-Slack-Request-Timestamp": "1704164645"}, {"X-Slack-Signature": "v0=[redacted]"}},
	} {
		headers := map[string]string{"Content-Type": "application/json", "User-Agent": "walhook/1.2.3", "X-Webhook-Event": "a.b", "X-Webhook-ID": "D",
			"X-Webhook-Attempt": "2", "X-Mine": "m"}
		add := func(more map[string]string) {
			for name, value := range more {
				headers[name] = value
			}
		}
		settings := []string{"signature", "'" + signature + "'", "headers", `'{"X-Mine": "m"}'`}
		add(want[0])
		require.Equal(t, headers, attempted(t, db, "outbox.publish('a.b', '{}')", subscribe(t, db, settings...)).headers, signature)
		add(want[1])
		require.Equal(t, headers, attempted(t, db, "outbox.publish('a.b', '{}')", subscribe(t, db, append(settings, "secret", "'env:A'")...)).headers, signature)
	}
}

func TestCallsShowEveryFormat(t *testing.T) {
	t.Parallel()
	db := connect(t)
	const bare = "outbox.publish('a', '[1.10]')"
	const full = `outbox.publish('a.b', '{"n": null}', key => 'k ü', tenant => 't', source => '/s?%41 %é', correlation_id => 'c "1"',
		headers => '{"traceparent": "00-1", "tracestate": "x=1", "other": "o"}')`
	const attributes = `{"id": "D", "type": "a.b", "time": "2024-01-01T00:00:00.000001Z", "specversion": "1.0", "datacontenttype": "application/json",
		"subject": "k ü", "tenant": "t", "source": "/s?%41%20%25%C3%A9", "correlationid": "c \"1\"", "traceparent": "00-1", "tracestate": "x=1", "data": {"n": null}}`
	for name, tt := range map[string]struct {
		publish, format, contentType, payload string
		set                                   []string
	}{
		"envelope": {bare, "envelope", "application/json",
			`{"event_type": "a", "event_data": [1.10], "webhook_id": "D", "timestamp": "2024-01-01T00:00:00.000001Z", "attempt": 2}`, nil},
		"envelope 2": {"outbox.publish('a', '{}', source => 's')", "envelope", "application/json",
			`{"event_type": "a", "event_data": {}, "webhook_id": "D", "timestamp": "2024-01-01T00:00:00.000001Z", "attempt": 2, "version": 2, "event_id": "E",
				"key": null, "tenant": "", "source": "s", "correlation_id": null, "created_at": "CREATED"}`, []string{"payload_version", "2"}},
		"standard":           {bare, "standard", "application/json", `{"type": "a", "timestamp": "2024-01-01T00:00:00.000001Z", "data": [1.10]}`, nil},
		"raw":                {bare, "raw", "application/json", `[1.10]`, nil},
		"cloudevents":        {full, "cloudevents", "application/cloudevents+json", attributes, nil},
		"cloudevents batch":  {full, "cloudevents", "application/cloudevents-batch+json", attributes, []string{"batch_size", "2"}},
		"cloudevents binary": {full, "cloudevents-binary", "application/json", `{"n": null}`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got := attempted(t, db, tt.publish, subscribe(t, db, append(tt.set, "payload_format", "'"+tt.format+"'")...))
			require.Equal(t, tt.contentType, got.headers["Content-Type"])
			var created map[string]any
			if json.Unmarshal([]byte(got.payload), &created) == nil && created["created_at"] != nil {
				_, err := time.Parse(time.RFC3339Nano, created["created_at"].(string))
				require.NoError(t, err)
				created["created_at"] = "CREATED"
				text, err := json.Marshal(created)
				require.NoError(t, err)
				got.payload = string(text)
			}
			require.JSONEq(t, tt.payload, got.payload)
			if tt.format == "raw" {
				require.Equal(t, tt.payload, got.payload, "every digit")
			}
			binary := map[string]string{"ce-id": "D", "ce-type": "a.b", "ce-time": "2024-01-01T00:00:00.000001Z", "ce-specversion": "1.0", "ce-subject": "k%20%C3%BC",
				"ce-tenant": "t", "ce-source": "/s?%2541%2520%2525%25C3%25A9", "ce-correlationid": "c%20%221%22", "ce-traceparent": "00-1", "ce-tracestate": "x=1"}
			for name, value := range binary {
				if tt.format != "cloudevents-binary" {
					value = ""
				}
				require.Equal(t, value, got.headers[name], name)
			}
			if tt.publish == full {
				require.Equal(t, name != "cloudevents batch", got.headers["Traceparent"] == "00-1" && got.headers["Tracestate"] == "x=1")
			}
		})
	}
}

// The log outlives its events, and an attempt to deliver what was emitted shows it all the same.
func TestCallsOfOtherEvents(t *testing.T) {
	t.Parallel()
	db := connect(t)
	id := subscribe(t, db, "secret", "'x'", "signature", "'github'")
	exec(t, db, "SELECT outbox.send_test($1)", id)
	c := attempted(t, db, "event_id FROM outbox.deliveries", id)
	require.Contains(t, c.payload, `"event_type": "webhook.test"`)
	require.Equal(t, "webhook.test", c.headers["X-GitHub-Event"])
	exec(t, db, "DELETE FROM outbox.emitted_events")
	require.Equal(t, 1, value[int](t, db, "SELECT count(*) FROM outbox.calls WHERE payload IS NULL AND status = 200 AND url = 'http://localhost'"))
}

// Who configures subscriptions rotates secrets and asks for the past, which takes rights on the requests alone.
func TestOperatorRole(t *testing.T) {
	t.Parallel()
	db := harness.Connect(t, harness.Database(t))
	operator := as(t, db, "SELECT, INSERT, UPDATE, DELETE", "outbox.subscriptions")
	id := uuid.UUID{}
	require.NoError(t, operator.QueryRow(t.Context(), "INSERT INTO outbox.subscriptions (name, url, backfill_from) VALUES ('n', 'http://localhost', '2020-01-01') RETURNING id").Scan(&id))
	require.Equal(t, 1, value[int](t, db, "SELECT count(*) FROM outbox.replays"), "a trigger asks for the backfill")
	_, err := operator.Exec(t.Context(), "SELECT outbox.rotate_secret($1, 'x')", id)
	require.NoError(t, err)
	_, err = operator.Exec(t.Context(), "SELECT outbox.replay($1, '2020-01-01')", id)
	require.ErrorContains(t, err, "permission denied for table replays")
}
