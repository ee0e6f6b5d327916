package acceptance_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// cliRun runs walhook with the database's environment.
func (db *database) cliRun(args ...string) result {
	db.t.Helper()
	return run(db.t, db.env(), args...)
}

// piped runs walhook with a text on its standard input.
func (db *database) piped(text string, args ...string) result {
	db.t.Helper()
	script := `printf '%s' "$0" | "$@"`
	p := harness.StartProcess(db.t, "/bin/sh", db.env(), append([]string{"-c", script, text, db.cli}, args...)...)
	code := p.Wait(soon)
	return result{code: code, stdout: p.Stdout(), stderr: p.Stderr()}
}

// added adds a subscription by the command and returns its id.
func (db *database) added(args ...string) uuid.UUID {
	db.t.Helper()
	r := db.cliRun(append([]string{"subscriptions", "add"}, args...)...)
	require.Zero(db.t, r.code, r.stderr)
	first, _, _ := strings.Cut(r.stdout, "\n")
	id, err := uuid.Parse(first)
	require.NoError(db.t, err, r.stdout)
	return id
}

// A flag for every column, which has its name.
func TestSubscriptionsAddSetsEveryColumn(t *testing.T) {
	db := newDatabase(t)
	id := db.added("--name", "clinic", "--description", "d", "--url", "https://clinic.example/hook", "--tenant", "north",
		"--event-types", "patient.*, visit.done", "--filters", `{"amount_min": 10.50}`, "--header", "X-Api: a:b", "--header", "X-Other:c",
		"--secret", "0123456789012345678901234", "--signature", "stripe", "--payload-format", "cloudevents", "--payload-version", "1", "--max-retries", "10",
		"--retry-delay", "90s", "--timeout", "1m", "--ordering", "key", "--max-in-flight", "3", "--rate-limit", "7", "--batch-size", "50",
		"--batch-wait", "250ms", "--verification", "cloudevents", "--is-active=false", "--backfill-from", "2h")
	require.Equal(t, `north|clinic|d|https://clinic.example/hook|{patient.*,visit.done}|{"amount_min": 10.50}|{"X-Api": "a:b", "X-Other": "c"}`+
		`|0123456789012345678901234|stripe|cloudevents|1|10|00:01:30|00:01:00|key|3|7|50|00:00:00.25|cloudevents|f`,
		ask[string](db, `SELECT concat_ws('|', tenant, name, description, url, event_types, filters, headers, secret, signature, payload_format,
			payload_version, max_retries, retry_delay, timeout, ordering, max_in_flight, rate_limit, batch_size, batch_wait, verification, is_active)
			FROM outbox.subscriptions WHERE id = $1`, id))
	require.InDelta(t, 7200, ask[float64](db, "SELECT extract(epoch FROM created_at - backfill_from)::float8 FROM outbox.subscriptions WHERE id = $1", id), 60)

	o := db.cliRun("subscriptions", "show", "clinic", "--json").object(t)
	require.Equal(t, "plain", o["secret"])
	require.Equal(t, 90.0, o["retry_delay"], "seconds")
	require.Equal(t, []any{"patient.*", "visit.done"}, o["events"])

	for _, column := range ask[[]string](db, `SELECT array_agg(column_name::text) FROM information_schema.columns
		WHERE table_schema = 'outbox' AND table_name = 'subscriptions' AND column_name NOT IN ('id', 'headers', 'previous_secret',
			'previous_secret_expires_at', 'created_at', 'updated_at', 'status', 'status_reason', 'verified_at', 'verification_error', 'allowed_rate', 'revision')`) {
		require.Contains(t, db.cliRun("subscriptions", "add", "--help").stdout, "--"+strings.ReplaceAll(column, "_", "-")+" ", "every column has its flag")
	}
}

func TestSubscriptionsAddHasTheDefaultsOfTheTable(t *testing.T) {
	db := newDatabase(t)
	id := db.added("--name", "n", "--url", "http://localhost/")
	require.True(t, ask[bool](db, `WITH other AS (INSERT INTO outbox.subscriptions (name, url) VALUES ('n', 'http://localhost/') RETURNING *)
		SELECT to_jsonb(o) - v = to_jsonb(s) - v FROM other o, outbox.subscriptions s, (VALUES ('{id,created_at,updated_at,revision}'::text[])) x(v) WHERE s.id = $1`, id))
	require.Equal(t, uuid.Version(7), id.Version())
}

func TestSubscriptionsListAndShow(t *testing.T) {
	db := newDatabase(t)
	require.Contains(t, db.cliRun("subscriptions", "list").stdout, "walhook subscriptions add")
	require.Contains(t, db.cliRun("subscriptions", "list", "--json").stdout, `"subscriptions": []`)

	first := db.added("--name", "one\x1b[2J", "--url", "https://one.example/", "--secret", "env:ONE_SECRET")
	second := db.added("--name", "two", "--url", "https://two.example/", "--tenant", "south", "--secret", "file:/run/secrets/two", "--event-types", "a.b")
	db.added("--name", "three", "--url", "https://three.example/", "--is-active=false")
	r := db.cliRun("subscriptions", "list")
	require.Zero(t, r.code, r.stderr)
	require.Regexp(t, `(?m)^ID +TENANT +NAME +STATE +URL +EVENTS +SIGNATURE +SECRET$`, r.stdout)
	require.Regexp(t, `(?m)^`+first.String()+` +- +one\\x1b\[2J +active +https://one.example/ +all +sha256 +env:ONE_SECRET$`, r.stdout)
	require.Regexp(t, `(?m)^`+second.String()+` +south +two +active +https://two.example/ +a\.b +sha256 +file:/run/secrets/two$`, r.stdout)
	require.Regexp(t, `three +inactive .* none$`, strings.TrimSpace(r.stdout))

	require.NotContains(t, db.cliRun("subscriptions", "list", "--tenant", "south").stdout, "three")
	require.NotContains(t, db.cliRun("subscriptions", "list", "--status", "inactive").stdout, "two")
	page := db.cliRun("subscriptions", "list", "--limit", "2", "--json").object(t)
	require.Len(t, page["subscriptions"], 2)
	require.Equal(t, second.String(), page["next"])
	rest := db.cliRun("subscriptions", "list", "--after", second.String(), "--json").object(t)
	require.Len(t, rest["subscriptions"], 1)
	require.Nil(t, rest["next"])

	show := db.cliRun("subscriptions", "show", "two")
	require.Zero(t, show.code, show.stderr)
	require.Regexp(t, `(?m)^id +`+second.String()+`$`, show.stdout)
	require.Regexp(t, `(?m)^signature +sha256, secret: file:/run/secrets/two$`, show.stdout)
	require.Equal(t, db.cliRun("subscriptions", "show", second.String()).stdout, show.stdout, "by id or by name")
}

// An id or a name that only one has; a tenant makes names unique again.
func TestSubscriptionsAreFoundByName(t *testing.T) {
	db := newDatabase(t)
	north := db.added("--name", "twin", "--url", "http://localhost/", "--tenant", "north")
	db.added("--name", "twin", "--url", "http://localhost/", "--tenant", "south")
	db.added("--name", north.String(), "--url", "http://localhost/")
	r := db.cliRun("subscriptions", "show", "twin")
	require.Equal(t, 2, r.code)
	require.Contains(t, r.stderr, `several subscriptions are named "twin": give --tenant or the id`)
	require.Equal(t, north.String(), db.cliRun("subscriptions", "show", "twin", "--tenant", "north", "--json").object(t)["id"])
	require.Equal(t, "twin", db.cliRun("subscriptions", "show", north.String(), "--json").object(t)["name"], "an id is an id first")
	for _, args := range [][]string{{"show", "nobody"}, {"remove", uuid.NewString()}, {"activate", "twin", "--tenant", "west"}, {"test", "nobody"}, {"rotate-secret", "nobody"}} {
		r := db.cliRun(append([]string{"subscriptions"}, args...)...)
		require.Equal(t, 1, r.code, r.stderr)
		require.Contains(t, r.stderr, "there is no subscription")
	}
}

func TestSubscriptionsUpdate(t *testing.T) {
	db := newDatabase(t)
	id := db.added("--name", "n", "--url", "http://localhost/", "--rate-limit", "5", "--header", "A: 1", "--secret", "a-secret-of-two-dozen-bytes", "--max-retries", "1")
	row := func() string {
		return ask[string](db, "SELECT concat_ws('|', name, tenant, max_retries, coalesce(rate_limit::text, '-'), headers, coalesce(secret, '-'), event_types) FROM outbox.subscriptions WHERE id = $1", id)
	}
	o := db.cliRun("subscriptions", "update", "n", "--name", "m", "--max-retries", "2", "--json").object(t)
	require.Equal(t, "m", o["name"])
	require.Equal(t, `m||2|5|{"A": "1"}|a-secret-of-two-dozen-bytes|{}`, row())
	r := db.cliRun("subscriptions", "update", id.String(), "--rate-limit", "0", "--no-headers", "--no-secret", "--new-tenant", "east", "--event-types", "a.b")
	require.Zero(t, r.code, r.stderr)
	require.Equal(t, "m|east|2|-|{}|-|{a.b}", row())

	r = db.cliRun("subscriptions", "update", id.String())
	require.Equal(t, 2, r.code)
	require.Contains(t, r.stderr, "nothing to change")
}

func TestSubscriptionsActivateDeactivateRemove(t *testing.T) {
	db := newDatabase(t)
	id := db.added("--name", "n", "--url", "http://localhost/")
	require.Equal(t, "deactivated "+id.String()+"\n", db.cliRun("subscriptions", "deactivate", "n").stdout)
	require.False(t, ask[bool](db, "SELECT is_active FROM outbox.subscriptions"))
	require.Equal(t, "activated", db.cliRun("subscriptions", "activate", "n", "--json").object(t)["done"])
	require.True(t, ask[bool](db, "SELECT is_active FROM outbox.subscriptions"))
	require.Equal(t, "removed "+id.String()+"\n", db.cliRun("subscriptions", "remove", "n").stdout)
	require.Zero(t, ask[int](db, "SELECT count(*) FROM outbox.subscriptions"))
}

// What the database refuses is said in a sentence with the value and the remedy, and ends with 2.
func TestSubscriptionsRefuseWhatIsWrong(t *testing.T) {
	db := newDatabase(t)
	base := []string{"--name", "n", "--url", "http://localhost/"}
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"--url", "http://localhost/"}, []string{"--name is not given"}},
		{[]string{"--name", "n"}, []string{"--url is not given"}},
		{[]string{"--name", "", "--url", "http://localhost/"}, []string{`name "" is refused`, "1 to 255"}},
		{[]string{"--name", "n", "--url", "ftp://x"}, []string{`url "ftp://x" is refused`, "http://"}},
		{[]string{"--name", "n", "--url", "https://user:hidden@host/"}, []string{`url "https://[redacted]@host/" is refused`, "no user or password"}},
		{append(base, "--event-types", "a b"), []string{`event types "a b" is refused`, "patient.*"}},
		{append(base, "--filters", "[]"), []string{"--filters", "JSON object"}},
		{append(base, "--filters", "{"), []string{"--filters", "JSON object"}},
		{append(base, "--filters", `{"amount": {"above": 1}}`), []string{"--filters", `unknown operator "above"`, "gte"}},
		{append(base, "--header", "Host: hidden"), []string{`headers "Host" is refused`}},
		{append(base, "--header", "hidden"), []string{"--header number 1", "Name: value"}},
		{append(base, "--header", "A: 1", "--header", "A: hidden"), []string{`"A" is given twice`}},
		{append(base, "--header", "A: 1", "--header", "a: hidden"), []string{`"a" is given twice`}},
		{append(base, "--signature", "md5"), []string{`signature "md5" is refused`, "github"}},
		{append(base, "--payload-format", "xml"), []string{`payload format "xml" is refused`, "cloudevents"}},
		{append(base, "--payload-version", "9"), []string{`payload version "9" is refused`}},
		{append(base, "--max-retries", "11"), []string{`max retries "11" is refused`, "0 to 10"}},
		{append(base, "--max-retries", "many"), []string{`"many"`, "--max-retries", "digits"}},
		{append(base, "--retry-delay", "25h"), []string{`retry delay "25h" is refused`, "24h"}},
		{append(base, "--retry-delay", "soon"), []string{`"soon"`, "--retry-delay", "30s"}},
		{append(base, "--timeout", "0s"), []string{`timeout "0s" is refused`, "300s"}},
		{append(base, "--ordering", "some"), []string{`ordering "some" is refused`, "strict"}},
		{append(base, "--max-in-flight", "0"), []string{`max in flight "0" is refused`}},
		{append(base, "--rate-limit", "-1"), []string{`rate limit "-1" is refused`, "0 for no limit"}},
		{append(base, "--batch-size", "1001"), []string{`batch size "1001" is refused`}},
		{append(base, "--batch-wait", "1h"), []string{`batch wait "1h" is refused`, "5m"}},
		{append(base, "--verification", "ping"), []string{`verification "ping" is refused`}},
		{append(base, "--is-active=perhaps"), []string{"--is-active", "true or false"}},
		{append(base, "--backfill-from", "tomorrow"), []string{"--backfill-from", "2026-01-31T12:00:00Z"}},
		{append(base, "--secret", ""), []string{"--secret is empty"}},
		{append(base, "--secret", strings.Repeat("hidden", 200)), []string{"secret is refused", "1024 bytes"}},
		{append(base, "--secret", "env:"), []string{"env:CLINIC_SECRET"}},
		{append(base, "--secret", "env:DATABASE_URL"), []string{"env:DATABASE_URL", "the relay itself"}},
		{append(base, "--secret", "file:hidden"), []string{"file:/run/secrets/clinic"}},
		{append(base, "--secret", "enc:hidden"), []string{"no ciphertext"}},
		{append(base, "--signature", "standard", "--secret", "whsec_hid!den"), []string{"secret", "whsec_"}},
		{append(base, "--signature", "standard", "--secret", "whsec_aGlkZGVu"), []string{"secret", "16 to 64"}},
		{append(base, "--signature", "standard-ed25519", "--secret", "whsec_aGlkZGVu"), []string{"secret", "whsk_"}},
		{append(base, "--generate-secret", "--secret", "hidden"), []string{"exclude each other"}},
		{append(base, "--batch-size", "2", "--payload-format", "cloudevents-binary"), []string{`batch size "2" is refused`, "--batch-size 1"}},
	} {
		r := db.cliRun(append([]string{"subscriptions", "add"}, c.args...)...)
		require.Equal(t, 2, r.code, "%v: %s", c.args, r.stderr)
		require.Empty(t, r.stdout)
		for _, want := range c.want {
			require.Contains(t, r.stderr, want)
		}
		require.NotContains(t, r.stderr, "hidden")
		require.NotContains(t, r.stderr, "SQLSTATE")
	}
	require.Zero(t, ask[int](db, "SELECT count(*) FROM outbox.subscriptions"))

	db.added(base...)
	r := db.cliRun("subscriptions", "update", "n", "--max-retries", "11")
	require.Equal(t, 2, r.code, r.stderr)
	require.Contains(t, r.stderr, `max retries "11" is refused`)
	for _, args := range [][]string{{"nothing"}, {"list", "--status", "odd"}, {"list", "--limit", "0"}, {"list", "--after", "x"}, {"show"},
		{"rotate-secret", "n", "--overlap", "-1h"}, {"test", "n", "--data", "{"}, {"test", "n", "--type", "a b"}, {"test", "n", "--wait", "0s"}} {
		r := db.cliRun(append([]string{"subscriptions"}, args...)...)
		require.Equal(t, 2, r.code, "%v: %s", args, r.stderr)
	}
	require.Equal(t, 2, run(t, []string{"DATABASE_URL=" + harness.EmptyDatabase(t)}, "subscriptions", "list").code, "no schema")
}

// A secret that was made is printed once, in the form that the scheme wants.
func TestSubscriptionsGenerateSecrets(t *testing.T) {
	db := newDatabase(t)
	o := db.cliRun("subscriptions", "add", "--name", "n", "--url", "http://localhost/", "--signature", "standard", "--generate-secret", "--json").object(t)
	stored := ask[string](db, "SELECT secret FROM outbox.subscriptions WHERE name = 'n'")
	require.Equal(t, stored, o["generated_secret"])
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(stored, "whsec_"))
	require.NoError(t, err)
	require.Len(t, key, 32)

	r := db.cliRun("subscriptions", "add", "--name", "e", "--url", "http://localhost/", "--signature", "standard-ed25519", "--generate-secret")
	require.Zero(t, r.code, r.stderr)
	lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
	require.Len(t, lines, 3)
	private, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(ask[string](db, "SELECT secret FROM outbox.subscriptions WHERE name = 'e'"), "whsk_"))
	require.NoError(t, err)
	require.Equal(t, "secret: whsk_"+base64.StdEncoding.EncodeToString(private), lines[1])
	public := ed25519.PrivateKey(private).Public().(ed25519.PublicKey)
	require.Equal(t, "public key: whpk_"+base64.StdEncoding.EncodeToString(public), lines[2])

	r = db.piped("from-standard-input-0123\n", "subscriptions", "update", "n", "--secret-stdin", "--signature", "sha256")
	require.Zero(t, r.code, r.stderr)
	require.Equal(t, "from-standard-input-0123", ask[string](db, "SELECT secret FROM outbox.subscriptions WHERE name = 'n'"))
	require.Empty(t, r.stderr)
	r = run(t, append(db.env(), "WALHOOK_SECRET=short"), "subscriptions", "update", "n", "--description", "d")
	require.Zero(t, r.code, r.stderr)
	require.Contains(t, r.stderr, "5 bytes, which may be guessed")
	require.Equal(t, "short", ask[string](db, "SELECT secret FROM outbox.subscriptions WHERE name = 'n'"))
}

func TestSubscriptionsRotateSecret(t *testing.T) {
	db := newDatabase(t)
	db.added("--name", "n", "--url", "http://localhost/", "--secret", "the-old-one-of-24-bytes!")
	o := db.cliRun("subscriptions", "rotate-secret", "n", "--json").object(t)
	require.Equal(t, o["generated_secret"], ask[string](db, "SELECT secret FROM outbox.subscriptions"))
	require.Equal(t, "the-old-one-of-24-bytes!", ask[string](db, "SELECT previous_secret FROM outbox.subscriptions"))
	require.InDelta(t, 86400, ask[float64](db, "SELECT extract(epoch FROM previous_secret_expires_at - updated_at)::float8 FROM outbox.subscriptions"), 60)
	require.Contains(t, db.cliRun("subscriptions", "show", "n").stdout, "secret: plain, previous: plain until 20")

	require.Zero(t, db.cliRun("subscriptions", "update", "n", "--no-previous-secret").code)
	require.Zero(t, ask[int](db, "SELECT count(previous_secret) FROM outbox.subscriptions"))
	require.Equal(t, o["generated_secret"], ask[string](db, "SELECT secret FROM outbox.subscriptions"))
	r := db.cliRun("subscriptions", "rotate-secret", "n", "--secret", "env:CLINIC", "--overlap", "2d")
	require.Zero(t, r.code, r.stderr)
	require.InDelta(t, 2*86400, ask[float64](db, "SELECT extract(epoch FROM previous_secret_expires_at - updated_at)::float8 FROM outbox.subscriptions"), 60)
	require.Contains(t, db.cliRun("subscriptions", "show", "n").stdout, "secret: env:CLINIC, previous: plain until")
	r = db.cliRun("subscriptions", "rotate-secret", "n", "--secret", "env:CLINIC")
	require.Equal(t, 2, r.code, r.stderr)
	require.Contains(t, r.stderr, "already has")
}

// test asks the receiver, whatever the subscription's event types are, and tells by the exit code.
func TestSubscriptionsTest(t *testing.T) {
	db, receiver := newDatabase(t), harness.NewCollector(t)
	db.start()
	db.added("--name", "n", "--url", receiver.URL(), "--event-types", "other")
	o := db.cliRun("subscriptions", "test", "n", "--type", "ping.pong", "--data", `{"n": 1.50}`, "--json").object(t)
	require.Equal(t, true, o["succeeded"])
	require.Equal(t, 200.0, o["status"])
	got := receiver.Wait(1, soon)[0]
	require.Equal(t, "ping.pong", got.Header.Get("X-Webhook-Event"))
	require.Equal(t, o["delivery_id"], got.Header.Get("X-Webhook-ID"))
	require.Contains(t, string(got.Body), `{"n": 1.50}`)

	receiver.Answer(func(harness.Request) harness.Response {
		return harness.Response{Status: http.StatusTeapot, Body: []byte("short\x1b[2Jand stout")}
	})
	r := db.cliRun("subscriptions", "test", "n")
	require.Equal(t, 1, r.code)
	require.Regexp(t, `(?m)^status +418$`, r.stdout)
	require.Contains(t, r.stdout, `short\x1b[2Jand stout`)
	require.Contains(t, r.stderr, "the receiver answered 418")

	require.Zero(t, db.cliRun("subscriptions", "deactivate", "n").code)
	r = db.cliRun("subscriptions", "test", "n")
	require.Equal(t, 1, r.code)
	require.Contains(t, r.stderr, "is not active")
}

func TestSubscriptionsTestWithoutARelay(t *testing.T) {
	db := newDatabase(t)
	db.added("--name", "n", "--url", "http://127.0.0.1:1/")
	r := db.cliRun("subscriptions", "test", "n", "--wait", "300ms")
	require.Equal(t, 1, r.code)
	require.Contains(t, r.stderr, "within 300ms: is a relay running (walhook status)")
}
