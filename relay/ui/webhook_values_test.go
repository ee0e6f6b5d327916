package ui

import (
	"encoding/json"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/admin"
)

func TestEveryFieldHasItsTexts(t *testing.T) {
	t.Parallel()
	for _, group := range webhookGroups() {
		require.Contains(t, texts, "webhook.group."+group.Name)
		for _, field := range group.Fields {
			require.Contains(t, texts, "webhook.field."+field.Name)
			require.Contains(t, texts, "webhook.hint."+field.Name)
		}
	}
}

func TestBadgeSaysFirstWhatKeepsDeliveriesAway(t *testing.T) {
	t.Parallel()
	fine := admin.Webhook{Status: "valid", Active: true, Verification: "none"}
	unverified, inactive, invalid := fine, fine, fine
	unverified.Verification = "slack"
	inactive.Active = false
	invalid.Active, invalid.Status = false, "invalid"
	for word, w := range map[string]admin.Webhook{"failing": fine, "not verified": unverified, "inactive": inactive, "invalid": invalid} {
		require.Equal(t, word, badgeOf(w, 1, nil).Word)
	}
}

// Whatever is typed is read or refused, and what is read is shown as it was meant.
func FuzzWebhookForm(f *testing.F) {
	f.Add("a, b\r\nc.*", "X-A: b\n\nX-C:d", `{"a": 1}`, "1.5", "2026-01-02T03:04", "secret")
	f.Add("", ":", "[", "1e400", "Z", "")
	f.Add("\x00,\xff", "a:\xff\nA:", `{"a":{}} x`, "-0", "2026-01-02T03:04:05Z", "\xff")
	f.Fuzz(func(t *testing.T, events, headers, filters, number, moment, secret string) {
		form := &webhookForm{New: true, everywhere: true, problems: map[string]string{}}
		form.take(url.Values{
			"name": {"n"}, "url": {"http://localhost"}, "events": {events}, "headers": {headers}, "filters": {filters}, "secret": {secret},
			"max_retries": {number}, "retry_delay": {number}, "rate_limit": {number}, "backfill_from": {moment},
		})
		change := form.change()
		require.Equal(t, *change.Events, eventNames(eventText(*change.Events), *change.Events))
		if form.problems["headers"] == "" {
			again, err := headerLines(headerText(*change.Headers))
			require.NoError(t, err)
			require.Equal(t, *change.Headers, again)
		}
		if form.problems["filters"] == "" {
			require.True(t, json.Valid(change.Filters))
			require.LessOrEqual(t, len(filterText(change.Filters)), 82*len(change.Filters)+2)
		}
		for _, group := range form.Groups() {
			for _, field := range group.Fields {
				require.False(t, field.Kind == "secret" && field.Value != "")
			}
		}
	})
}
