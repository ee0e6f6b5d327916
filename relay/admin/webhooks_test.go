package admin_test

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/admin"
)

func TestCreateWebhook(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	w, err := o.desk().CreateWebhook(t.Context(), admin.Change{Name: ptr("billing"), URL: ptr("https://billing.example/in")})
	require.NoError(t, err)
	require.Equal(t, admin.Webhook{
		ID: w.ID, Name: "billing", URL: "https://billing.example/in", Events: []string{}, Filters: json.RawMessage("{}"), Headers: map[string]string{},
		Signature: "sha256", PayloadFormat: "envelope", PayloadVersion: 1, MaxRetries: 3, RetryDelay: 60, Timeout: 30, Ordering: "none", MaxInFlight: 16,
		BatchSize: 1, Verification: "none", Active: true, Status: "valid", CreatedAt: w.CreatedAt, UpdatedAt: w.UpdatedAt, Revision: w.Revision,
	}, w, "the defaults")
	require.Equal(t, uuid.Version(7), w.ID.Version())
	require.Positive(t, w.Revision)
	require.WithinDuration(t, time.Now(), w.CreatedAt, time.Minute)

	full := admin.Change{
		Tenant: ptr("clinic"), Name: ptr("all"), Description: ptr("of everything"), URL: ptr("http://localhost:1/"), Events: &[]string{"patient.*"},
		Filters: json.RawMessage(`{"department": "cardiology"}`), Headers: &map[string]string{"X-Api-Key": canary, "X-Plain": "<plain>"}, Secret: ptr(canary),
		Signature: ptr("github"), PayloadFormat: ptr("raw"), PayloadVersion: ptr(2), MaxRetries: ptr(10), RetryDelay: ptr(1.5), Timeout: ptr(300.0),
		Ordering: ptr("key"), MaxInFlight: ptr(2), RateLimit: ptr(7), BatchSize: ptr(9), BatchWait: ptr(0.25), Verification: ptr("slack"), Active: ptr(false),
		BackfillFrom: ptr(time.Now().Add(-time.Hour)),
	}
	w, err = o.desk().CreateWebhook(t.Context(), full)
	require.NoError(t, err)
	requireNoSecret(t, w)
	require.Equal(t, admin.Webhook{
		ID: w.ID, Tenant: "clinic", Name: "all", Description: "of everything", URL: "http://localhost:1/", Events: []string{"patient.*"},
		Filters: json.RawMessage(`{"department": "cardiology"}`), Headers: map[string]string{"X-Api-Key": admin.Redacted, "X-Plain": "<plain>"}, HasSecret: true,
		Signature: "github", PayloadFormat: "raw", PayloadVersion: 2, MaxRetries: 10, RetryDelay: 1.5, Timeout: 300, Ordering: "key", MaxInFlight: 2,
		RateLimit: ptr(7), BatchSize: 9, BatchWait: 0.25, Verification: "slack", Status: "valid", CreatedAt: w.CreatedAt, UpdatedAt: w.UpdatedAt, Revision: w.Revision,
	}, w)
	require.Equal(t, canary, o.text(t, "SELECT headers ->> 'X-Api-Key' FROM outbox.subscriptions WHERE id = $1", w.ID))
	require.Equal(t, "true", o.text(t, "SELECT backfill::text FROM outbox.replays WHERE subscription_id = $1", w.ID))
	again, err := o.desk().Webhook(t.Context(), w.ID)
	require.NoError(t, err)
	require.Equal(t, w, again)
}

// What is refused names its field, and where that helps the value.
func TestRefusedChanges(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	w := o.webhook(t, "", "a")
	before := o.text(t, "SELECT to_jsonb(s)::text FROM outbox.subscriptions s WHERE id = $1", w.ID)
	for _, c := range []struct {
		field, message string
		change         admin.Change
	}{
		{"name", `"" is refused: give it 1 to 255 characters`, admin.Change{Name: ptr("")}},
		{"name", "NUL", admin.Change{Name: ptr("a\x00b")}},
		{"name", "UTF-8", admin.Change{Name: ptr("a\xff")}},
		{"url", `"ftp://x" is refused: write http://`, admin.Change{URL: ptr("ftp://x")}},
		{"url", `"[redacted]@host/" is refused`, admin.Change{URL: ptr("https://u:" + canary + "@host/")}},
		{"description", "10 kB", admin.Change{Description: ptr(strings.Repeat("x", 10241))}},
		{"events", `["a b"] is refused`, admin.Change{Events: &[]string{"a b"}}},
		{"events", "NUL", admin.Change{Events: &[]string{"a\x00"}}},
		{"filters", "[1] is refused: write a JSON object", admin.Change{Filters: json.RawMessage(`[1]`)}},
		{"filters", "write a JSON object", admin.Change{Filters: json.RawMessage(`{"a"`)}},
		{"filters", "write a JSON object", admin.Change{Filters: json.RawMessage(`null`)}},
		{"filters", "NUL", admin.Change{Filters: json.RawMessage(`{"a":"\u0000"}`)}},
		{"filters", "64 kB", admin.Change{Filters: json.RawMessage(`{"a":"` + strings.Repeat("x", 66000) + `"}`)}},
		{"filters", "write a JSON object", admin.Change{Filters: json.RawMessage(`{"a":` + strings.Repeat("[", 1e5) + strings.Repeat("]", 1e5) + `}`)}},
		{"headers", "does not set itself", admin.Change{Headers: &map[string]string{"Host": canary}}},
		{"headers", "NUL", admin.Change{Headers: &map[string]string{"X-A": canary + "\x00"}}},
		{"headers", `"X-New" has the value [redacted]`, admin.Change{Headers: &map[string]string{"X-New": admin.Redacted}}},
		{"secret", "1 to 1024 bytes", admin.Change{Secret: ptr(strings.Repeat(canary, 200))}},
		{"secret", "NUL", admin.Change{Secret: ptr(canary + "\x00")}},
		{"secret", "env:NAME", admin.Change{Secret: ptr("env:" + canary + "=")}},
		{"secret", "wants whsec_", admin.Change{Secret: ptr(canary), Signature: ptr("standard")}},
		{"secret", "wants whsk_", admin.Change{Secret: ptr(canary), Signature: ptr("standard-ed25519")}},
		{"secret", "wants whsec_", admin.Change{Signature: ptr("standard")}},
		{"signature", `"md5" is refused: give sha256`, admin.Change{Signature: ptr("md5")}},
		{"payload_format", `"xml"`, admin.Change{PayloadFormat: ptr("xml")}},
		{"payload_version", "9 is refused: give 1 or 2", admin.Change{PayloadVersion: ptr(9)}},
		{"max_retries", "11 is refused: give 0 to 10", admin.Change{MaxRetries: ptr(11)}},
		{"max_retries", "32 bits", admin.Change{MaxRetries: ptr(math.MaxInt64)}},
		{"retry_delay", "86401 is refused", admin.Change{RetryDelay: ptr(86401.0)}},
		{"retry_delay", "NaN is refused", admin.Change{RetryDelay: ptr(math.NaN())}},
		{"timeout", "+Inf is refused", admin.Change{Timeout: ptr(math.Inf(1))}},
		{"timeout", "1e+300 is refused", admin.Change{Timeout: ptr(1e300)}},
		{"timeout", "0 is refused: give more than 0s", admin.Change{Timeout: ptr(0.0)}},
		{"batch_wait", "-1 is refused", admin.Change{BatchWait: ptr(-1.0)}},
		{"batch_size", "batch size of 1", admin.Change{BatchSize: ptr(2), PayloadFormat: ptr("cloudevents-binary")}},
		{"rate_limit", "-1 is refused", admin.Change{RateLimit: ptr(-1)}},
		{"max_in_flight", "0 is refused", admin.Change{MaxInFlight: ptr(0)}},
		{"ordering", `"some"`, admin.Change{Ordering: ptr("some")}},
		{"verification", `"ping"`, admin.Change{Verification: ptr("ping")}},
		{"tenant", "keeps its tenant", admin.Change{Tenant: ptr("")}},
		{"backfill_from", "replay", admin.Change{BackfillFrom: ptr(time.Now())}},
	} {
		_, err := o.desk().UpdateWebhook(t.Context(), w.ID, c.change, 0)
		require.Error(t, err, "%s %s", c.field, c.message)
		require.Contains(t, requireError(t, err, admin.Invalid, c.field).Message, c.message)
	}
	require.Equal(t, before, o.text(t, "SELECT to_jsonb(s)::text FROM outbox.subscriptions s WHERE id = $1", w.ID), "nothing has changed")

	name, url := ptr("n"), ptr("http://localhost/")
	for field, change := range map[string]admin.Change{
		"name": {URL: url}, "url": {Name: name},
		"tenant":        {Name: name, URL: url, Tenant: ptr(strings.Repeat("x", 256))},
		"backfill_from": {Name: name, URL: url, BackfillFrom: ptr(time.Now().Add(time.Hour))},
		"headers":       {Name: name, URL: url, Headers: &map[string]string{"X-Api-Key": admin.Redacted}},
		"secret":        {Name: name, URL: url, Secret: ptr(canary), Signature: ptr("standard")},
	} {
		_, err := o.desk().CreateWebhook(t.Context(), change)
		requireError(t, err, admin.Invalid, field)
	}
}

// Filters that the relay would not understand are refused while somebody is there to mend them.
func TestFiltersAreChecked(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	w := o.webhook(t, "", "a")
	o.store = admin.New(o.Pool, admin.Options{CheckFilters: func(filters []byte) error {
		if strings.Contains(string(filters), "foo") {
			return errors.New(`filter "a": unknown operator "foo"`)
		}
		return nil
	}})
	bad := json.RawMessage(`{"a": {"foo": 1}}`)
	want := &admin.Error{Kind: admin.Invalid, Field: "filters", Message: `filter "a": unknown operator "foo"`}
	_, err := o.desk().CreateWebhook(t.Context(), admin.Change{Name: ptr("b"), URL: ptr("http://localhost/b"), Filters: bad})
	require.Equal(t, want, err)
	_, err = o.desk().UpdateWebhook(t.Context(), w.ID, admin.Change{Filters: bad}, 0)
	require.Equal(t, want, err)
	w, err = o.desk().UpdateWebhook(t.Context(), w.ID, admin.Change{Filters: json.RawMessage(`{"a": 1}`)}, 0)
	require.NoError(t, err)
	require.JSONEq(t, `{"a": 1}`, string(w.Filters))
}

func TestUpdateWebhook(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	w := o.webhook(t, "", "a")

	same, err := o.desk().UpdateWebhook(t.Context(), w.ID, admin.Change{}, w.Revision)
	require.NoError(t, err)
	require.Equal(t, w, same, "a change that gives nothing")

	changed, err := o.desk().UpdateWebhook(t.Context(), w.ID, admin.Change{MaxRetries: ptr(7), Timeout: ptr(0.5), RateLimit: ptr(3)}, w.Revision)
	require.NoError(t, err)
	require.Equal(t, []any{7, 0.5, 3}, []any{changed.MaxRetries, changed.Timeout, *changed.RateLimit})
	require.Equal(t, w.Name, changed.Name)
	require.Greater(t, changed.Revision, w.Revision)

	for _, change := range []admin.Change{{}, {MaxRetries: ptr(1)}} {
		_, err = o.desk().UpdateWebhook(t.Context(), w.ID, change, w.Revision)
		require.Contains(t, requireError(t, err, admin.Stale, "").Message, "read it again")
	}
	changed, err = o.desk().UpdateWebhook(t.Context(), w.ID, admin.Change{RateLimit: ptr(0), Events: &[]string{}}, 0)
	require.NoError(t, err)
	require.Nil(t, changed.RateLimit)
	require.Equal(t, 7, changed.MaxRetries, "what was stale changed nothing")
}

func TestHeadersThatAreNotShownAreKept(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	w := o.webhook(t, "", "a")
	require.Equal(t, map[string]string{"X-Api-Key": admin.Redacted, "X-Plain": "plain"}, w.Headers)

	w, err := o.desk().UpdateWebhook(t.Context(), w.ID, admin.Change{Headers: &map[string]string{"x-api-KEY": admin.Redacted, "X-Other": "o"}}, 0)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"x-api-KEY": admin.Redacted, "X-Other": "o"}, w.Headers)
	require.JSONEq(t, `{"x-api-KEY": "`+canary+`-key", "X-Other": "o"}`, o.text(t, "SELECT headers::text FROM outbox.subscriptions WHERE id = $1", w.ID))

	w, err = o.desk().UpdateWebhook(t.Context(), w.ID, admin.Change{Headers: ptr(map[string]string(nil))}, 0)
	require.NoError(t, err)
	require.Empty(t, w.Headers)
}

func TestInvalidWebhooksSaySo(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	w := o.webhook(t, "", "a")
	o.exec(t, "UPDATE outbox.subscriptions SET status = 'invalid', status_reason = 'filters: a_min' WHERE id = $1", w.ID)
	o.exec(t, "UPDATE outbox.subscriptions SET created_at = 'infinity', previous_secret = 'x', previous_secret_expires_at = 'infinity' WHERE id = $1", o.webhook(t, "", "b").ID)
	o.exec(t, "UPDATE outbox.subscriptions SET status = 'invalid', status_reason = 'filters: a_min' WHERE id = $1", w.ID)
	page, err := o.desk().Webhooks(t.Context(), nil, 0, "")
	require.NoError(t, err)
	require.Equal(t, []string{"invalid", "filters: a_min"}, []string{page.Items[1].Status, page.Items[1].StatusReason})
	require.Equal(t, 9999, page.Items[0].CreatedAt.Year())
	require.Equal(t, 9999, page.Items[0].PreviousExpires.Year())
	requireNoSecret(t, page) // JSON has a form for all times
}

func TestListOfWebhooks(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	var ids []uuid.UUID
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		ids = append([]uuid.UUID{o.webhook(t, "", name).ID}, ids...)
	}
	_, err := o.desk().SetActive(t.Context(), ids[1], false)
	require.NoError(t, err)
	list := func(active *bool) (got []uuid.UUID) {
		cursor := ""
		for {
			page, err := o.desk().Webhooks(t.Context(), active, 2, cursor)
			require.NoError(t, err)
			require.LessOrEqual(t, len(page.Items), 2)
			requireNoSecret(t, page)
			for _, w := range page.Items {
				got = append(got, w.ID)
			}
			if cursor = page.Next; cursor == "" {
				return got
			}
		}
	}
	require.Equal(t, ids, list(nil), "the newest first")
	require.Equal(t, []uuid.UUID{ids[1]}, list(ptr(false)))
	require.Equal(t, []uuid.UUID{ids[0], ids[2], ids[3], ids[4]}, list(ptr(true)))

	_, err = o.desk().Webhooks(t.Context(), nil, 501, "")
	requireError(t, err, admin.Invalid, "limit")
	_, err = o.desk().Webhooks(t.Context(), nil, 0, "x")
	requireError(t, err, admin.Invalid, "cursor")
}

func TestSetActiveAndDelete(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	w := o.webhook(t, "", "a")
	for _, active := range []bool{false, false, true} {
		changed, err := o.desk().SetActive(t.Context(), w.ID, active)
		require.NoError(t, err)
		require.Equal(t, active, changed.Active)
	}
	requireError(t, o.desk().DeleteWebhook(t.Context(), w.ID, w.Revision), admin.Stale, "")
	require.NoError(t, o.desk().DeleteWebhook(t.Context(), w.ID, 0))
	for _, revision := range []int{0, 1} {
		requireError(t, o.desk().DeleteWebhook(t.Context(), w.ID, revision), admin.NotFound, "")
	}
	w = o.webhook(t, "", "b")
	require.NoError(t, o.desk().DeleteWebhook(t.Context(), w.ID, w.Revision))
	_, err := o.desk().Webhook(t.Context(), w.ID)
	requireError(t, err, admin.NotFound, "")
}

func TestSecrets(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	w := o.webhook(t, "", "a")
	stored := func() string {
		return o.text(t, "SELECT concat_ws(' ', secret, previous_secret) FROM outbox.subscriptions WHERE id = $1", w.ID)
	}
	rotated, err := o.desk().RotateSecret(t.Context(), w.ID, canary+"-2", time.Hour)
	require.NoError(t, err)
	requireNoSecret(t, rotated)
	require.WithinDuration(t, time.Now().Add(time.Hour), *rotated.PreviousExpires, time.Minute)
	require.Equal(t, canary+"-2 "+canary+"-secret", stored())

	_, err = o.desk().RotateSecret(t.Context(), w.ID, canary+"-2", 0)
	require.Contains(t, requireError(t, err, admin.Invalid, "secret").Message, "already has")
	_, err = o.desk().RotateSecret(t.Context(), w.ID, "", 0)
	requireError(t, err, admin.Invalid, "secret")
	_, err = o.desk().RotateSecret(t.Context(), w.ID, "x", -time.Second)
	requireError(t, err, admin.Invalid, "overlap")

	_, err = o.desk().RotateSecret(t.Context(), w.ID, canary+"-3", 0)
	require.NoError(t, err)
	require.Equal(t, canary+"-3", stored())
	changed, err := o.desk().UpdateWebhook(t.Context(), w.ID, admin.Change{Secret: ptr("")}, 0)
	require.NoError(t, err)
	require.False(t, changed.HasSecret)
	require.Empty(t, stored())
}

// What is stored of a secret is sealed for its row; what refers to one is stored as it is, and only for those who may.
func TestSealedSecrets(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	seal := func(secret string, id uuid.UUID) (string, error) {
		require.NotEqual(t, uuid.Nil, id)
		return "enc:" + strings.Repeat("A", 4*len(secret)), nil // as long as no other
	}
	desk := admin.New(o.Pool, admin.Options{Seal: seal}).For(&admin.Principal{Scopes: admin.Scopes})
	stored := func(w admin.Webhook) string {
		return o.text(t, "SELECT secret FROM outbox.subscriptions WHERE id = $1", w.ID)
	}
	create := func(secret, signature string) (admin.Webhook, error) {
		return desk.CreateWebhook(t.Context(), admin.Change{Name: ptr("a"), URL: ptr("http://localhost/"), Secret: &secret, Signature: &signature})
	}
	w, err := create(canary, "sha256")
	require.NoError(t, err)
	require.Equal(t, "enc:"+strings.Repeat("AAAA", len(canary)), stored(w))
	_, err = create(canary, "standard")
	requireError(t, err, admin.Invalid, "secret")
	_, err = desk.RotateSecret(t.Context(), w.ID, canary+"2", 0)
	require.NoError(t, err)
	require.Equal(t, "enc:"+strings.Repeat("AAAA", len(canary)+1), stored(w))

	// That the plain secret of before is the new one is noticed, although it would be sealed.
	plain := o.webhook(t, "", "plain")
	_, err = desk.RotateSecret(t.Context(), plain.ID, canary+"-secret", 0)
	require.Contains(t, requireError(t, err, admin.Invalid, "secret").Message, "already has")

	for _, reference := range []string{"env:CLINIC_SECRET", "file:/run/secrets/clinic", "enc:QUJD"} {
		w, err := create(reference, "standard")
		require.NoError(t, err)
		require.Equal(t, reference, stored(w))
		own := o.webhook(t, "clinic", "own")
		_, err = o.desk("clinic").CreateWebhook(t.Context(), admin.Change{Name: ptr("a"), URL: ptr("http://localhost/"), Secret: &reference})
		require.Contains(t, requireError(t, err, admin.Invalid, "secret").Message, "belongs to the operator")
		_, err = o.desk("clinic").UpdateWebhook(t.Context(), own.ID, admin.Change{Secret: &reference}, 0)
		requireError(t, err, admin.Invalid, "secret")
		_, err = o.desk("clinic").RotateSecret(t.Context(), own.ID, reference, 0)
		requireError(t, err, admin.Invalid, "secret")
	}

	broken := admin.New(o.Pool, admin.Options{Seal: func(string, uuid.UUID) (string, error) { return "", errors.New("no keyset") }}).For(&admin.Principal{})
	_, err = broken.UpdateWebhook(t.Context(), w.ID, admin.Change{Secret: ptr("x")}, 0)
	require.ErrorContains(t, err, "no keyset")
	var e *admin.Error
	require.NotErrorAs(t, err, &e, "that is not the caller's fault")
}

func TestReplay(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	w := o.webhook(t, "", "a")
	now := time.Now()
	id, err := o.desk().Replay(t.Context(), w.ID, now.Add(-time.Hour), time.Time{}, true)
	require.NoError(t, err)
	require.Equal(t, "true waiting", o.text(t, "SELECT only_failed || ' ' || state FROM outbox.replays WHERE id = $1 AND until <= now() AND since < now() - interval '59 minutes'", id))
	for _, c := range []struct {
		since, until time.Time
		field        string
	}{
		{time.Time{}, time.Time{}, "since"},
		{now, now.Add(-time.Hour), "since"},
		{now.Add(time.Hour), time.Time{}, "since"},
		{now.Add(-time.Hour), now.Add(time.Hour), "until"},
	} {
		_, err := o.desk().Replay(t.Context(), w.ID, c.since, c.until, false)
		requireError(t, err, admin.Invalid, c.field)
	}
}
