package relay_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// refusal returns the constraint, or else the SQLSTATE and message, with which Postgres refused something.
func refusal(t *testing.T, err error) string {
	t.Helper()
	var pg *pgconn.PgError
	require.True(t, errors.As(err, &pg), "it was not refused: %v", err)
	if pg.ConstraintName != "" {
		return pg.ConstraintName
	}
	return pg.Code + " " + pg.Message
}

// TestBadSubscriptionsAreRefused has the column that is wrong, its value in SQL, and the constraint whose name
// says why.
func TestBadSubscriptionsAreRefused(t *testing.T) {
	t.Parallel()
	db := harness.Connect(t, harness.Database(t))
	const url, header, eventTypes = "subscriptions_url_is_http_or_https_without_credentials", "subscriptions_headers_are_safe_strings", "subscriptions_event_types_are_names_or_prefixes"
	const secret = "subscriptions_secret_is_plain_env_name_file_path_or_enc_base64"
	for _, c := range []struct{ column, value, constraint string }{
		{"url", `''`, url},
		{"url", `'example.com'`, url},
		{"url", `'//example.com'`, url},
		{"url", `'ftp://example.com'`, url},
		{"url", `'file:///etc/passwd'`, url},
		{"url", `'javascript:alert(1)'`, url},
		{"url", `'http://'`, url},
		{"url", `'http:///path'`, url},
		{"url", `'http://:80/'`, url},
		{"url", `'http://user:password@example.com/'`, url},
		{"url", `'http://user@example.com/'`, url},
		{"url", `'http://example.com:0/'`, url},
		{"url", `'http://example.com:99999/'`, url},
		{"url", `'http://example.com:http/'`, url},
		{"url", `'http://exam ple.com/'`, url},
		{"url", `'http://example.com/a b'`, url},
		{"url", `E'http://example.com/\r\nX-Injected: 1'`, url},
		{"url", `E'http://example.com/\n'`, url},
		{"url", `E'http://example.com\n.evil.org/'`, url},
		{"url", `' http://example.com/'`, url},
		{"url", `'http://exämple.com/'`, url},
		{"url", `'http://[::1/'`, url},
		{"url", `'http://' || repeat('a', 2048) || '.org'`, url},
		{"url", `'http://example.com/%'`, url},
		{"url", `'http://example.com/%2'`, url},
		{"url", `'http://example.com/%zz'`, url},
		{"url", `'http://example.com/?a=%2g'`, url},
		{"url", `'http://example.com?%'`, url},
		{"headers", `'[]'`, header},
		{"headers", `'null'`, header},
		{"headers", `'{"X-A": 1}'`, header},
		{"headers", `'{"X-A": null}'`, header},
		{"headers", `'{"X-A": ["b"]}'`, header},
		{"headers", `'{"X-A": "b\r\nX-Injected: 1"}'`, header},
		{"headers", `'{"X-A": "b\n"}'`, header},
		{"headers", `'{"X-A": "\rb"}'`, header},
		{"headers", `'{"X-A": "\u007f"}'`, header},
		{"headers", `'{"X-A": "\u001b[31m"}'`, header},
		{"headers", `'{"": "b"}'`, header},
		{"headers", `'{"X A": "b"}'`, header},
		{"headers", `'{"X-A:": "b"}'`, header},
		{"headers", `'{"X-A\r\nX-Injected": "b"}'`, header},
		{"headers", `'{"X-Ä": "b"}'`, header},
		{"headers", `'{"Host": "b"}'`, header},
		{"headers", `'{"CONTENT-LENGTH": "1"}'`, header},
		{"headers", `'{"content-type": "text/plain"}'`, header},
		{"headers", `'{"Connection": "close"}'`, header},
		{"headers", `'{"Transfer-Encoding": "chunked"}'`, header},
		{"headers", `'{"Idempotency-Key": "b"}'`, header},
		{"headers", `'{"X-Webhook-ID": "b"}'`, header},
		{"headers", `'{"webhook-signature": "b"}'`, header},
		{"headers", `'{"X-Hub-Signature": "b"}'`, header},
		{"headers", `'{"x-hub-signature-256": "b"}'`, header},
		{"headers", `'{"X-GitHub-Event": "b"}'`, header},
		{"headers", `'{"Stripe-Signature": "b"}'`, header},
		{"headers", `'{"X-Shopify-Topic": "b"}'`, header},
		{"headers", `'{"X-Slack-Signature": "b"}'`, header},
		{"headers", `'{"ce-type": "b"}'`, header},
		{"headers", `jsonb_build_object('X-A', repeat('b', 4097))`, header},
		{"headers", `(SELECT jsonb_object_agg('X-' || n, '') FROM generate_series(1, 51) AS n)`, header},
		{"event_types", `'{""}'`, eventTypes},
		{"event_types", `'{"patient created"}'`, eventTypes},
		{"event_types", `'{patient*}'`, eventTypes},
		{"event_types", `'{patient.*.x}'`, eventTypes},
		{"event_types", `'{.*}'`, eventTypes},
		{"event_types", `'{pätient}'`, eventTypes},
		{"event_types", `'{a,NULL}'`, eventTypes},
		{"event_types", `'{{a},{b}}'`, eventTypes},
		{"event_types", `ARRAY[E'a\nb']`, eventTypes},
		{"event_types", `ARRAY[repeat('a', 256)]`, eventTypes},
		{"filters", `'[]'`, "subscriptions_filters_is_an_object"},
		{"filters", `'"a"'`, "subscriptions_filters_is_an_object"},
		{"event_types", `(SELECT array_agg('a' || n) FROM generate_series(1, 1001) AS n)`, "subscriptions_event_types_are_at_most_1000"},
		{"filters", `jsonb_build_object('a', repeat('x', 65536))`, "subscriptions_filters_is_at_most_64_kb"},
		{"filters", `jsonb_build_object('a', 1e131000)`, "subscriptions_filters_is_at_most_64_kb"},
		{"description", `repeat('é', 5121)`, "subscriptions_description_is_at_most_10_kb"},
		{"headers", `(SELECT jsonb_object_agg('X-' || n, repeat('x', 4096)) FROM generate_series(1, 4) AS n)`, "subscriptions_headers_are_at_most_16_kb"},
		{"name", `''`, "subscriptions_name_is_1_to_255_characters"},
		{"name", `repeat('a', 256)`, "subscriptions_name_is_1_to_255_characters"},
		{"tenant", `repeat('a', 256)`, "subscriptions_tenant_is_at_most_255_bytes"},
		{"secret", `''`, "subscriptions_secret_is_1_to_1024_bytes"},
		{"secret", `repeat('a', 1025)`, "subscriptions_secret_is_1_to_1024_bytes"},
		{"previous_secret", `''`, "subscriptions_secret_is_1_to_1024_bytes"},
		{"secret", `'enc:' || repeat('AAAA', 512)`, "subscriptions_secret_is_1_to_1024_bytes"},
		{"secret", `'env:'`, secret},
		{"secret", `'env:1ST'`, secret},
		{"secret", `'env:A-B'`, secret},
		{"secret", `'env:$A'`, secret},
		{"secret", `E'env:A\n'`, secret},
		{"secret", `'file:'`, secret},
		{"secret", `'file:relative/path'`, secret},
		{"secret", `E'file:/a\nb'`, secret},
		{"secret", `'enc:'`, secret},
		{"secret", `'enc:not base64'`, secret},
		{"secret", `'enc:AAA'`, secret},
		{"previous_secret", `'file:relative'`, secret},
		{"signature", `'md5'`, "subscriptions_signature_is_known"},
		{"payload_format", `'xml'`, "subscriptions_payload_format_is_known"},
		{"payload_version", `0`, "subscriptions_payload_version_is_1_or_2"},
		{"payload_version", `3`, "subscriptions_payload_version_is_1_or_2"},
		{"verification", `'email'`, "subscriptions_verification_is_known"},
		{"backfill_from", `'-infinity'`, "subscriptions_backfill_from_is_finite"},
		{"max_retries", `-1`, "subscriptions_max_retries_is_0_to_10"},
		{"max_retries", `11`, "subscriptions_max_retries_is_0_to_10"},
		{"retry_delay", `'-1 second'`, "subscriptions_retry_delay_is_0_to_1_day"},
		{"retry_delay", `'25 hours'`, "subscriptions_retry_delay_is_0_to_1_day"},
		{"timeout", `'0'`, "subscriptions_timeout_is_at_most_300_s"},
		{"timeout", `'301 seconds'`, "subscriptions_timeout_is_at_most_300_s"},
		{"ordering", `'fifo'`, "subscriptions_ordering_is_known"},
		{"max_in_flight", `0`, "subscriptions_max_in_flight_is_1_to_1000"},
		{"max_in_flight", `1001`, "subscriptions_max_in_flight_is_1_to_1000"},
		{"rate_limit", `0`, "subscriptions_rate_limit_is_positive"},
		{"batch_size", `0`, "subscriptions_batch_size_is_1_to_1000"},
		{"batch_size", `1001`, "subscriptions_batch_size_is_1_to_1000"},
		{"batch_wait", `'-1 second'`, "subscriptions_batch_wait_is_0_to_5_minutes"},
		{"batch_wait", `'301 seconds'`, "subscriptions_batch_wait_is_0_to_5_minutes"},
		{"status", `'broken'`, "subscriptions_status_is_known"},
	} {
		insert := map[string]string{"name": "'a'", "url": "'http://example.com/'", c.column: c.value}
		if c.column == "status" { // the trigger sets it on an insert
			exec(t, db, "INSERT INTO outbox.subscriptions (name, url) VALUES ('a', 'http://a')")
			_, err := db.Exec(t.Context(), "UPDATE outbox.subscriptions SET status = "+c.value)
			require.Equal(t, c.constraint, refusal(t, err))
			continue
		}
		var columns, values []string
		for name, v := range insert {
			columns, values = append(columns, name), append(values, v)
		}
		_, err := db.Exec(t.Context(), "INSERT INTO outbox.subscriptions ("+strings.Join(columns, ", ")+") VALUES ("+strings.Join(values, ", ")+")")
		require.Equal(t, c.constraint, refusal(t, err), "%s = %s", c.column, c.value)
	}
}

// TestBadCombinationsAreRefused has settings of which each is fine by itself.
func TestBadCombinationsAreRefused(t *testing.T) {
	t.Parallel()
	db := harness.Connect(t, harness.Database(t))
	const standard, ed25519 = "subscriptions_standard_secret_is_whsec_and_base64", "subscriptions_ed25519_secret_is_whsk_and_base64_of_32_or_64"
	subscribe(t, db, "http://a")
	for _, c := range []struct{ set, constraint string }{
		{`signature = 'standard', secret = 'plain text'`, standard},
		{`signature = 'standard', secret = 'whsec_'`, standard},
		{`signature = 'standard', secret = 'whsec_AAAAA'`, standard},
		{`signature = 'standard', secret = 'whsk_AAAA'`, standard},
		{`signature = 'standard', previous_secret = 'plain text'`, standard},
		{`signature = 'standard-ed25519', secret = 'whsec_' || repeat('AAAA', 8)`, ed25519},
		{`signature = 'standard-ed25519', secret = 'whsk_' || repeat('AAAA', 8)`, ed25519},
		{`signature = 'standard-ed25519', secret = 'whsk_' || repeat('AAAA', 11)`, ed25519},
		{`signature = 'standard-ed25519', previous_secret = 'x'`, ed25519},
		{`batch_size = 2, payload_format = 'cloudevents-binary'`, "subscriptions_cloudevents_binary_has_no_batches"},
	} {
		_, err := db.Exec(t.Context(), "UPDATE outbox.subscriptions SET "+c.set)
		require.Equal(t, c.constraint, refusal(t, err), c.set)
	}
	_, err := db.Exec(t.Context(), "INSERT INTO outbox.subscriptions (name, url, backfill_from) VALUES ('a', 'http://a', now() + interval '1 hour')")
	require.ErrorContains(t, err, "lies in the future")
	_, err = db.Exec(t.Context(), "UPDATE outbox.subscriptions SET backfill_from = now()")
	require.ErrorContains(t, err, "use outbox.replay(subscription_id, since) instead")
}

// TestGoodSubscriptionsAreTaken keeps the constraints from refusing what is fine.
func TestGoodSubscriptionsAreTaken(t *testing.T) {
	t.Parallel()
	db := harness.Connect(t, harness.Database(t))
	for _, c := range []struct{ column, value string }{
		{"url", `'https://example.com'`},
		{"url", `'HTTPS://EXAMPLE.COM:65535/a?b=c%20d&e#f'`},
		{"url", `'http://localhost:1'`},
		{"url", `'http://192.0.2.1/'`},
		{"url", `'http://[2001:db8::1]:8080/a'`},
		{"url", `'http://example.com?a=b'`},
		{"url", `'http://example.com/@user:port'`},
		{"url", `'http://under_score.example.com./'`},
		{"url", `'http://example.com/%41%5b?a=%2F#%20'`},
		{"description", `repeat('é', 5120)`},
		{"event_types", `(SELECT array_agg('a' || n) FROM generate_series(1, 1000) AS n)`},
		{"filters", `jsonb_build_object('a', repeat('x', 65000))`},
		{"headers", `(SELECT jsonb_object_agg('X-' || n, repeat('x', 4000)) FROM generate_series(1, 4) AS n)`},
		{"previous_secret_expires_at", `'infinity'`},
		{"headers", `'{}'`},
		{"headers", `'{"Authorization": "Bearer a.b-c_d~e+f/=", "X-Empty": "", "X-Tab": "a\tb", "X-Ünicode-is-not-a-name-but-": "x"}'::jsonb - 'X-Ünicode-is-not-a-name-but-'`},
		{"headers", `'{"X-A": "grüße 日本"}'`},
		{"event_types", `'{}'`},
		{"event_types", `'{a,patient.created,patient.*,a.b.c.*,*}'`},
		{"event_types", `ARRAY[repeat('a', 255)]`},
		{"filters", `'{"a": [1, "b", null]}'`},
		{"retry_delay", `'0'`}, {"retry_delay", `'1 day'`},
		{"timeout", `'1 ms'`}, {"timeout", `'5 minutes'`},
		{"max_retries", `0`}, {"max_retries", `10`},
		{"rate_limit", `1`}, {"max_in_flight", `1000`},
		{"signature", `'none'`}, {"payload_format", `'raw'`},
		{"secret", `'plain, with: colons'`}, {"secret", `'env:_SECRET_1'`}, {"secret", `'file:/run/secrets/a b'`},
		{"secret", `'enc:QUJD'`}, {"secret", `'enc:' || repeat('AAAA', 511)`}, {"previous_secret", `'env:OLD'`},
		{"signature", `'standard', secret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'`},
		{"signature", `'standard', secret = 'MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'`},
		{"signature", `'standard', secret = 'env:A', previous_secret = 'enc:QUI='`},
		{"signature", `'standard-ed25519', secret = 'whsk_' || repeat('A', 43) || '='`},
		{"signature", `'standard-ed25519', secret = 'whsk_' || repeat('A', 86) || '=='`},
		{"signature", `'standard-ed25519', secret = 'file:/a'`},
		{"verification", `'slack', signature = 'slack'`}, {"verification", `'cloudevents', signature = 'github'`},
		{"payload_format", `'cloudevents', batch_size = 1000, batch_wait = '5 minutes'`}, {"payload_format", `'cloudevents-binary'`},
		{"payload_version", `2`}, {"ordering", `'strict'`}, {"headers", `'{"X-Hub": "a", "X-Stripe": "b", "cent": "c"}'`},
	} {
		_, err := db.Exec(t.Context(), "INSERT INTO outbox.subscriptions (name, url) VALUES ('a', 'http://a')")
		require.NoError(t, err)
		_, err = db.Exec(t.Context(), "UPDATE outbox.subscriptions SET "+c.column+" = "+c.value)
		require.NoError(t, err, "%s = %s", c.column, c.value)
		exec(t, db, "DELETE FROM outbox.subscriptions")
	}
}

func TestSubscriptionsCannotBeRenamedOrTruncated(t *testing.T) {
	t.Parallel()
	db := harness.Connect(t, harness.Database(t))
	subscribe(t, db, "http://a")
	_, err := db.Exec(t.Context(), "UPDATE outbox.subscriptions SET id = gen_random_uuid()")
	require.ErrorContains(t, err, "insert a new subscription instead")
	_, err = db.Exec(t.Context(), "TRUNCATE outbox.subscriptions")
	require.ErrorContains(t, err, "use DELETE")
}

// TestBadEventsAreRefused has events that neither a row nor a logical message may be: the constraint of the
// table, and what outbox.emit says.
func TestBadEventsAreRefused(t *testing.T) {
	t.Parallel()
	db := harness.Connect(t, harness.Database(t))
	const kind, notDotted = "events_type_is_a_dotted_name", "is not a dotted name"
	for _, c := range []struct{ arguments, constraint, emit string }{
		{`'', '{}'`, kind, notDotted},
		{`'patient created', '{}'`, kind, notDotted},
		{`' a', '{}'`, kind, notDotted},
		{`E'a\n', '{}'`, kind, notDotted},
		{`E'a\r\nX-Injected: 1', '{}'`, kind, notDotted},
		{`E'a\tb', '{}'`, kind, notDotted},
		{`'pätient', '{}'`, kind, notDotted},
		{`'patient.*', '{}'`, kind, notDotted},
		{`repeat('a', 256), '{}'`, kind, notDotted},
		{`NULL, '{}'`, `23502 null value in column "type"`, notDotted},
		{`'a', NULL`, `23502 null value in column "payload"`, "payload is null"},
		{`'a', '{}', key => ''`, "events_key_is_1_to_1024_bytes", "key has 0 bytes"},
		{`'a', '{}', key => repeat('k', 1025)`, "events_key_is_1_to_1024_bytes", "key has 1025 bytes"},
		{`'a', '{}', tenant => repeat('t', 256)`, "events_names_are_at_most_255_bytes", "255 bytes"},
		{`'a', '{}', source => repeat('s', 256)`, "events_names_are_at_most_255_bytes", "255 bytes"},
		{`'a', '{}', correlation_id => repeat('c', 256)`, "events_names_are_at_most_255_bytes", "255 bytes"},
		{`'a', '{}', headers => '[]'`, "events_headers_is_an_object", "must be an object"},
		{`'a', to_jsonb(repeat('x', 10485760 - 3))`, "events_row_is_at_most_10_mb", "more than 10 MB"},
		{`'a', (SELECT jsonb_agg(1e131000::numeric) FROM generate_series(1, 420))`, "events_row_is_at_most_10_mb", "more than 10 MB"},
		{`'a', to_jsonb(repeat('x', 11000000))`, "events_row_is_at_most_10_mb", "more than 10 MB"},
		{`'a', '{}', headers => jsonb_build_object('h', repeat('x', 11000000))`, "events_row_is_at_most_10_mb", "more than 10 MB"},
		{`'a', to_jsonb(repeat('x', 6000000)), headers => jsonb_build_object('h', repeat('x', 6000000))`, "events_row_is_at_most_10_mb", "more than 10 MB"},
	} {
		_, err := db.Exec(t.Context(), "SELECT outbox.publish("+c.arguments+")")
		require.Contains(t, refusal(t, err), c.constraint, c.arguments)
		_, err = db.Exec(t.Context(), "SELECT outbox.emit("+c.arguments+")")
		require.Contains(t, refusal(t, err), c.emit, c.arguments)
	}
	require.Zero(t, value[int](t, db, "SELECT count(*) FROM outbox.events"))
}
