package relay_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// hasStatus waits until a subscription has a status, with a reason that contains the given text.
func hasStatus(t *testing.T, db *pgxpool.Pool, id uuid.UUID, status, reason string) {
	t.Helper()
	harness.Eventually(t, soon, "the subscription is "+status+" "+reason, func() bool {
		return value[bool](t, db, "SELECT status = $2 AND strpos(coalesce(status_reason, ''), $3) > 0 FROM outbox.subscriptions WHERE id = $1",
			id, status, reason)
	})
}

// TestPreviousSecretWithoutEnd: 'infinity' and no time at all sign for ever, '-infinity' no longer, and none of
// them keeps the relay from reading the others.
func TestPreviousSecretWithoutEnd(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	start(t, options(url))
	collectors := map[string]*harness.Collector{}
	for _, expires := range []string{"'infinity'", "NULL", "now() + interval '1 hour'", "'-infinity'", "now() - interval '1 hour'"} {
		collectors[expires] = harness.NewCollector(t)
		subscribe(t, db, collectors[expires].URL(), "secret", "'new'", "previous_secret", "'old'", "previous_secret_expires_at", expires)
	}
	exec(t, db, "SELECT outbox.publish('a', '{}')")
	settled(t, db)
	for expires, signatures := range map[string]int{
		"'infinity'": 2, "NULL": 2, "now() + interval '1 hour'": 2, "'-infinity'": 1, "now() - interval '1 hour'": 1,
	} {
		require.Equal(t, 1, collectors[expires].Count(), expires)
		require.Len(t, strings.Split(collectors[expires].Requests()[0].Header.Get("X-Webhook-Signature"), ", "), signatures, expires)
	}
}

// TestSettingsThatCannotBeUsed disables one subscription, says why, and leaves everybody else alone; what waits
// for it is delivered when it is repaired.
func TestSettingsThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ breaks, reason string }{
		"a URL that SQL takes for one":    {"url = 'http://[:::]/'", "url cannot be parsed"},
		"a column that cannot be read":    {"max_retries = NULL", "max_retries cannot be read"},
		"headers that cannot be read":     {`headers = '{"X-A": 1}'`, "headers cannot be read"},
		"a header that the relay sets":    {`headers = '{"Host": "a"}'`, `header "Host" is set by the relay`},
		"several things at the same time": {`max_retries = NULL, timeout = NULL`, "it anew: cannot scan NULL into *int; timeout cannot"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := harness.Database(t)
			db := harness.Connect(t, url)
			// As by a schema that somebody changed, or a newer one.
			exec(t, db, `ALTER TABLE outbox.subscriptions ALTER max_retries DROP NOT NULL, ALTER timeout DROP NOT NULL,
				DROP CONSTRAINT subscriptions_headers_are_safe_strings`)
			broken, healthy := harness.NewCollector(t), harness.NewCollector(t)
			id := subscribe(t, db, broken.URL())
			exec(t, db, "UPDATE outbox.subscriptions SET "+c.breaks+" WHERE id = $1", id)
			subscribe(t, db, healthy.URL())
			r := start(t, options(url)) // reads all of them
			hasStatus(t, db, id, "invalid", c.reason)
			exec(t, db, "SELECT outbox.publish('a', '{}')")
			healthy.Wait(1, soon)
			recorded(t, db)
			require.Equal(t, 1, r.Lanes().Invalid)
			require.Equal(t, 1, value[int](t, db, "SELECT count(*) FROM outbox.queue WHERE subscription_id = $1 AND state = 'inactive' AND attempts = 0", id))

			exec(t, db, "UPDATE outbox.subscriptions SET url = $2, max_retries = 3, timeout = '1 minute', headers = '{}' WHERE id = $1", id, broken.URL())
			settled(t, db)
			require.Equal(t, 1, broken.Count())
			exec(t, db, "UPDATE outbox.subscriptions SET "+c.breaks+" WHERE id = $1", id) // reads this one
			hasStatus(t, db, id, "invalid", c.reason)
			exec(t, db, "UPDATE outbox.subscriptions SET url = $2, max_retries = 3, timeout = '1 minute', headers = '{}' WHERE id = $1", id, broken.URL())
			hasStatus(t, db, id, "valid", "")
			require.Zero(t, value[int](t, db, "SELECT count(*) FROM outbox.dead_letters"))
		})
	}
}

// A change of how deliveries are sent applies to every event behind it, however closely it follows.
func TestSettingsApplyToEveryEventBehindTheChange(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	before, after := harness.NewCollector(t), harness.NewCollector(t)
	id := subscribe(t, db, before.URL())
	start(t, options(url))
	exec(t, db, "SELECT outbox.publish('first', '{}')")
	before.Wait(1, 10*time.Second)
	for i := range 50 {
		from, to := before, after
		if i%2 == 1 {
			from, to = after, before
		}
		seen, had := from.Count(), to.Count()
		exec(t, db, "UPDATE outbox.subscriptions SET url = '"+to.URL()+"' WHERE id = '"+id.String()+"'; SELECT outbox.publish('e', '{}')")
		to.Wait(had+1, 10*time.Second)
		require.Equal(t, seen, from.Count(), "change %d", i)
	}
}
