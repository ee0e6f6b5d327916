package ui_test

import (
	"html"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/admin"
)

func TestWebhookIsMadeThroughTheForm(t *testing.T) {
	t.Parallel()
	b := newBoard(t)
	require.Contains(t, b.get(t, "/webhooks/new").body, `action="/webhooks"`)
	made := b.post(t, "/webhooks", webhookForm("name", " billing ", "description", "two\r\nlines", "events", "patient.created, patient.updated\r\nvisit.*",
		"headers", "X-Team: billing\r\nAuthorization: Bearer "+secretCanary, "filters", `{"amount_min": 1000.50}`, "secret", secretCanary,
		"rate_limit", "5", "retry_delay", "1.5", "tenant", "acme", "ordering", "key")...)
	require.Equal(t, http.StatusSeeOther, made.status, made.body)
	id := uuid.MustParse(strings.TrimPrefix(made.location, "/webhooks/"))

	w, err := b.desk().Webhook(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, "billing", w.Name)
	require.Equal(t, "two\nlines", w.Description)
	require.Equal(t, []string{"patient.created", "patient.updated", "visit.*"}, w.Events)
	require.Equal(t, map[string]string{"X-Team": "billing", "Authorization": admin.Redacted}, w.Headers)
	require.JSONEq(t, `{"amount_min": 1000.50}`, string(w.Filters))
	require.True(t, w.HasSecret)
	require.Equal(t, 5, *w.RateLimit)
	require.InDelta(t, 1.5, w.RetryDelay, 0)
	require.Equal(t, "acme", w.Tenant)
	require.Equal(t, "key", w.Ordering)
	require.True(t, w.Active)

	shown := b.get(t, made.location)
	for _, text := range []string{"billing", "acme", "patient.created", "visit.*", "Authorization: [redacted]", "1000.50", "1.5 s", "no traffic", "never shown"} {
		require.Contains(t, shown.body, text)
	}
	require.NotContains(t, shown.body, secretCanary)
	require.NotContains(t, b.get(t, made.location+"/edit").body, secretCanary)
}

// What the form begins with is what a row gets that says nothing.
func TestFormBeginsWithTheDatabasesDefaults(t *testing.T) {
	t.Parallel()
	b := newBoard(t)
	bare, err := b.desk().CreateWebhook(t.Context(), admin.Change{Name: ptr("bare"), URL: ptr("http://localhost/")})
	require.NoError(t, err)
	form := inputsOf(b.get(t, "/webhooks/new").body)
	edit := inputsOf(b.get(t, "/webhooks/"+bare.ID.String()+"/edit").body)
	for _, name := range []string{
		"events", "filters", "headers", "signature", "payload_format", "payload_version", "verification", "max_retries", "retry_delay", "timeout",
		"ordering", "max_in_flight", "rate_limit", "batch_size", "batch_wait",
	} {
		require.Contains(t, form, name)
		require.Equal(t, edit[name], form[name], name)
	}
}

// inputsOf finds the values in a form: what an unchanged form sends.
func inputsOf(body string) map[string]string {
	values := map[string]string{}
	for _, part := range strings.Split(body, "<")[1:] {
		tag, text, _ := strings.Cut(part, ">")
		name := attribute(tag, "name")
		switch {
		case strings.HasPrefix(tag, "input") && attribute(tag, "type") != "checkbox", strings.HasPrefix(tag, "select"):
			values[name] = attribute(tag, "value")
			values[""] = name
		case strings.HasPrefix(tag, "textarea"):
			values[name] = html.UnescapeString(strings.TrimPrefix(text, "\n"))
		case strings.HasPrefix(tag, "option") && strings.Contains(tag, " selected"):
			values[values[""]] = attribute(tag, "value")
		}
	}
	return values
}

func attribute(tag, name string) string {
	_, value, _ := strings.Cut(tag, " "+name+`="`)
	value, _, _ = strings.Cut(value, `"`)
	return html.UnescapeString(value)
}

func TestBadInputIsToldByItsField(t *testing.T) {
	t.Parallel()
	b := newBoard(t)
	cases := map[string]struct{ field, typed, says string }{
		"no name":           {"name", " ", "it is missing"},
		"no URL":            {"url", "", "it is missing"},
		"another scheme":    {"url", "ftp://localhost/", "http:// or https://"},
		"odd event":         {"events", "patient created", "dotted names"},
		"odd header":        {"headers", "X-Fine: 1\nX-Odd", "line 2"},
		"header twice":      {"headers", "X-Odd: 1\nx-odd: 2", "twice"},
		"our header":        {"headers", "Content-Length: 1", "relay does not set itself"},
		"no JSON":           {"filters", "{\n\"a\": }", "from line 2 on"},
		"no object":         {"filters", "[1]", "write a JSON object"},
		"JSON and more":     {"filters", "{} {}", "no JSON"},
		"no number":         {"timeout", "soon", "is no number"},
		"not a number":      {"retry_delay", "NaN", "give seconds"},
		"half":              {"max_retries", "1.5", "is no whole number"},
		"nothing":           {"batch_size", "", "is no whole number"},
		"too many":          {"max_retries", "11", "0 to 10"},
		"no limit":          {"rate_limit", "0", "1 or more"},
		"odd signature":     {"signature", "rot13", "sha256"},
		"odd moment":        {"backfill_from", "yesterday", "UTC"},
		"secret of another": {"signature", "standard-ed25519", "whsk_"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := b.post(t, "/webhooks", webhookForm("description", "kept all the same", "secret", secretCanary, c.field, c.typed)...)
			require.Equal(t, http.StatusUnprocessableEntity, p.status, p.body)
			field := c.field
			if name == "secret of another" {
				field = "secret"
			}
			_, problem, found := strings.Cut(p.body, `id="f-`+field+`-error"`)
			require.True(t, found)
			problem, _, _ = strings.Cut(problem, "</p>")
			require.NotContains(t, problem, "hidden")
			require.Contains(t, problem, c.says)
			require.Contains(t, p.body, `href="#f-`+field+`"`)
			require.Contains(t, p.body, "kept all the same")
			require.NotContains(t, p.body, secretCanary)
			require.Contains(t, p.body, "Type the secret again")
			if field != "signature" && field != "secret" {
				require.Equal(t, strings.TrimSpace(c.typed), strings.TrimSpace(inputsOf(p.body)[field]))
			}
		})
	}
}

func TestWebhookIsChanged(t *testing.T) {
	t.Parallel()
	b := newBoard(t)
	w := b.webhook(t, "before", "acme")
	page := "/webhooks/" + w.ID.String()
	unchanged := inputsOf(b.get(t, page+"/edit").body)
	delete(unchanged, "")
	require.Equal(t, strconv.Itoa(w.Revision), unchanged["revision"])
	require.Contains(t, unchanged["headers"], "Authorization: [redacted]")
	var pairs []string
	for name, value := range unchanged {
		pairs = append(pairs, name, value)
	}
	saved := b.post(t, page+"/edit", append(pairs, "name", "after")...)
	require.Equal(t, http.StatusSeeOther, saved.status, saved.body)
	require.Equal(t, page, saved.location)

	now, err := b.desk().Webhook(t.Context(), w.ID)
	require.NoError(t, err)
	require.Greater(t, now.Revision, w.Revision)
	w.Name, w.Revision, w.UpdatedAt = "after", now.Revision, now.UpdatedAt
	require.Equal(t, w, now)
	var secret, authorization string
	require.NoError(t, b.QueryRow(t.Context(), "SELECT secret, headers ->> 'Authorization' FROM outbox.subscriptions WHERE id = $1", w.ID).Scan(&secret, &authorization))
	require.Equal(t, secretCanary, secret)
	require.Equal(t, "Bearer "+secretCanary, authorization)

	removed := b.post(t, page+"/edit", append(pairs, "revision", strconv.Itoa(now.Revision), "remove_secret", "yes")...)
	require.Equal(t, http.StatusSeeOther, removed.status, removed.body)
	now, err = b.desk().Webhook(t.Context(), w.ID)
	require.NoError(t, err)
	require.False(t, now.HasSecret)
}

func TestStaleChangeIsNotSaved(t *testing.T) {
	t.Parallel()
	b := newBoard(t)
	w := b.webhook(t, "contested", "")
	edit := "/webhooks/" + w.ID.String() + "/edit"
	somebody, err := b.desk().UpdateWebhook(t.Context(), w.ID, admin.Change{Description: ptr("by somebody else")}, 0)
	require.NoError(t, err)

	mine := webhookForm("name", "contested", "description", "by me", "headers", "X-Team: billing")
	for _, revision := range []string{strconv.Itoa(w.Revision), "", "0", "-1", "x"} {
		p := b.post(t, edit, append(mine, "revision", revision)...)
		require.Equal(t, http.StatusPreconditionFailed, p.status, p.body)
		require.Contains(t, p.body, "Somebody else has changed")
		require.Contains(t, p.body, "by me")
		require.Contains(t, p.body, "<code>by somebody else</code>")
		require.Equal(t, strconv.Itoa(somebody.Revision), inputsOf(p.body)["revision"])
		now, err := b.desk().Webhook(t.Context(), w.ID)
		require.NoError(t, err)
		require.Equal(t, somebody, now)
	}
	saved := b.post(t, edit, append(mine, "revision", strconv.Itoa(somebody.Revision))...)
	require.Equal(t, http.StatusSeeOther, saved.status, saved.body)
}

// A comma may be part of a name: a form that nobody has changed saves what it shows.
func TestEventNamesWithCommasSurviveTheForm(t *testing.T) {
	t.Parallel()
	b := newBoard(t)
	w, err := b.desk().CreateWebhook(t.Context(), admin.Change{Name: ptr("odd"), URL: ptr("http://localhost/"), Events: &[]string{"a,b", "c"}})
	require.NoError(t, err)
	saved := b.post(t, "/webhooks/"+w.ID.String()+"/edit", webhookForm("revision", strconv.Itoa(w.Revision), "events", "a,b\r\nc, d")...)
	require.Equal(t, http.StatusSeeOther, saved.status, saved.body)
	now, err := b.desk().Webhook(t.Context(), w.ID)
	require.NoError(t, err)
	require.Equal(t, []string{"a,b", "c", "d"}, now.Events)
}

// Deep JSON takes no more room on a page than it has.
func TestDeepFiltersAreShownAsTheyAre(t *testing.T) {
	t.Parallel()
	b := newBoard(t)
	deep := `{"a":{"in":` + strings.Repeat("[", 400) + strings.Repeat("]", 400) + `}}`
	p := b.post(t, "/webhooks", webhookForm("filters", deep)...)
	require.Equal(t, http.StatusSeeOther, p.status, p.body)
	require.Less(t, len(b.get(t, p.location).body), 100_000)
	require.Less(t, len(b.get(t, p.location+"/edit").body), 100_000)
	deeper := b.post(t, "/webhooks", webhookForm("filters", `{"a":`+strings.Repeat("[", 50_000)+strings.Repeat("]", 50_000)+`}`)...)
	require.Equal(t, http.StatusUnprocessableEntity, deeper.status)
}
