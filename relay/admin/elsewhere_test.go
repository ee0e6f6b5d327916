package admin_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/admin"
)

// Whoever may change a webhook must not learn the values of headers that they are not shown, by sending them to a server of
// their own.
func TestHiddenHeadersStayWithTheirServer(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	stored := func(w admin.Webhook) string {
		return o.text(t, "SELECT url || headers::text FROM outbox.subscriptions WHERE id = $1", w.ID)
	}
	w := o.webhook(t, "acme", "a") // of http://localhost
	before := stored(w)
	for _, url := range []string{"http://attacker.example/a", "https://localhost/a", "http://localhost:8080/a", "http://localhost.attacker.example/a", "http://localhost./a"} {
		for _, headers := range []*map[string]string{nil, {"X-Api-Key": admin.Redacted}, {"x-api-KEY": admin.Redacted, "X-Plain": "plain"}} {
			_, err := o.desk("acme").UpdateWebhook(t.Context(), w.ID, admin.Change{URL: &url, Headers: headers}, 0)
			require.Regexp(t, `(?i)"x-api-key".*give its value again`, requireError(t, err, admin.Invalid, "headers").Message, url)
			require.Equal(t, before, stored(w))
		}
	}
	for _, url := range []string{"http://localhost/b", "http://LOCALHOST:80/c?d", "HTTP://localhost/e"} {
		_, err := o.desk("acme").UpdateWebhook(t.Context(), w.ID, admin.Change{URL: &url}, 0)
		require.NoError(t, err, "the same server")
		require.Contains(t, stored(w), canary)
	}
	for _, headers := range []map[string]string{{"X-Api-Key": "mine"}, {"X-Plain": admin.Redacted}, {}} {
		w := o.webhook(t, "acme", "b")
		_, err := o.desk("acme").UpdateWebhook(t.Context(), w.ID, admin.Change{URL: ptr("http://attacker.example/"), Headers: &headers}, 0)
		require.NoError(t, err)
		require.NotContains(t, stored(w), canary)
	}
	bare, err := o.desk("acme").CreateWebhook(t.Context(), admin.Change{Name: ptr("c"), URL: ptr("http://localhost/"), Headers: &map[string]string{"X-Plain": "plain"}})
	require.NoError(t, err)
	bare, err = o.desk("acme").UpdateWebhook(t.Context(), bare.ID, admin.Change{URL: ptr("http://other.example/")}, 0)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"X-Plain": "plain"}, bare.Headers, "what is shown may go anywhere")
}
