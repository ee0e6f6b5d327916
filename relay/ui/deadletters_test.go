package ui_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

func TestDeadLettersAreFilteredAndSentAgain(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	one, other := l.webhook(t, "", "One"), l.webhook(t, "", "Other")
	ids := map[string]uuid.UUID{}
	for _, eventType := range []string{"a.b", "c.d"} {
		ids[eventType+" one"] = l.died(t, l.event(t, published{Type: eventType}), one, "status 500")
		ids[eventType+" other"] = l.died(t, l.event(t, published{Type: eventType}), other, "status 500")
	}
	listed := func(body string) (names []string) {
		for name, id := range ids {
			if strings.Contains(body, "/deliveries/"+id.String()) {
				names = append(names, name)
			}
		}
		return names
	}
	require.ElementsMatch(t, []string{"a.b one", "a.b other", "c.d one", "c.d other"}, listed(l.page(t, "/dead-letters")))
	require.ElementsMatch(t, []string{"a.b one", "c.d one"}, listed(l.page(t, "/dead-letters?webhook="+one.String())))
	require.ElementsMatch(t, []string{"a.b one", "a.b other"}, listed(l.page(t, "/dead-letters?type=a.b")))
	body := l.page(t, "/dead-letters?type=a.b&webhook="+other.String())
	require.ElementsMatch(t, []string{"a.b other"}, listed(body))
	require.Contains(t, body, `<option value="`+other.String()+`" selected>Other`)

	w := l.post(t, l.all, "/dead-letters/redeliver", url.Values{"all": {"yes"}, "type": {"a.b"}, "webhook": {one.String()}})
	location, err := url.Parse(w.Header().Get("Location"))
	require.NoError(t, err)
	require.Equal(t, url.Values{"type": {"a.b"}, "webhook": {one.String()}}, location.Query(), "the filter stays")
	body = l.follow(t, w)
	require.Contains(t, body, "Sent again: 1.")
	require.Contains(t, body, "No dead letter matches.")
	require.Equal(t, 1, l.count(t, "SELECT count(*) FROM outbox.deliveries WHERE id = $1", ids["a.b one"]))
	require.Equal(t, 3, l.count(t, "SELECT count(*) FROM outbox.dead_letters"))
}

func TestChosenDeadLettersAreSentAgain(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	hook := l.webhook(t, "", "hook")
	var ids []string
	for range 3 {
		ids = append(ids, l.died(t, l.event(t, published{Type: "a"}), hook, "status 500").String())
	}
	unknown := uuid.NewString()
	body := l.follow(t, l.post(t, l.all, "/dead-letters/redeliver", url.Values{"id": {ids[0], unknown, ids[2]}}))
	require.Contains(t, body, "Sent again: 2. 1 could not be sent, the first because: ")
	require.Contains(t, body, unknown)
	require.Equal(t, 2, l.count(t, "SELECT count(*) FROM outbox.deliveries WHERE id = ANY($1::uuid[])", ids))
	require.Contains(t, body, "/deliveries/"+ids[1])
}

func TestWhatCannotBeSentAgainStays(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	id := l.died(t, l.event(t, published{Type: "a"}), uuid.New(), "status 500")
	body := l.page(t, "/dead-letters")
	require.Contains(t, body, "webhook deleted")
	require.NotContains(t, body, `type="checkbox"`)
	body = l.follow(t, l.post(t, l.all, "/dead-letters/redeliver", url.Values{"all": {"yes"}}))
	require.Contains(t, body, "Sent again: 0. Those that are left cannot be sent")
	require.Contains(t, body, "/deliveries/"+id.String())
}

func TestManyDeadLettersAreSentInSteps(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	hook := l.webhook(t, "", "hook")
	l.exec(t, `INSERT INTO outbox.dead_letters (id, subscription_id, event_id, type, payload, tenant, emitted, created_at, committed_at, commit_lsn, commit_index, attempts)
		SELECT outbox.delivery_id(e, $1), $1, e, 'a', '{}', '', false, now(), now(), '0/1', g, 1 FROM (SELECT outbox.uuidv7() AS e, g FROM generate_series(1, 1001) AS g) AS x`, hook)
	body := l.follow(t, l.post(t, l.all, "/dead-letters/redeliver", url.Values{"all": {"yes"}}))
	require.Contains(t, body, "Sent again: 1000. There are more")
	body = l.follow(t, l.post(t, l.all, "/dead-letters/redeliver", url.Values{"all": {"yes"}}))
	require.Contains(t, body, "Sent again: 1.")
	require.Contains(t, body, "There are no dead letters.")
}

func TestDeadLettersComeInPages(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	hook := l.webhook(t, "", "hook")
	for range 51 {
		l.died(t, l.event(t, published{Type: "a"}), hook, "status 500")
	}
	body := l.page(t, "/dead-letters?type=a")
	require.Equal(t, 50, strings.Count(body, `type="checkbox"`))
	require.NotContains(t, body, "First page")
	body = l.page(t, link(t, body, `rel="next" href="`))
	require.Equal(t, 1, strings.Count(body, `type="checkbox"`))
	require.NotContains(t, body, `rel="next"`)
	require.Contains(t, body, `<a href="/dead-letters?type=a">First page</a>`)
}

// link is the address behind a text of a page.
func link(t *testing.T, body, before string) string {
	t.Helper()
	_, after, ok := strings.Cut(body, before)
	require.True(t, ok, "%s in %s", before, body)
	address, _, _ := strings.Cut(after, `"`)
	return strings.ReplaceAll(address, "&amp;", "&")
}

func TestWrongFormsOfDeadLettersAreRefused(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	many := make([]string, 501)
	for i := range many {
		many[i] = uuid.NewString()
	}
	for name, form := range map[string]url.Values{
		"none chosen":      {},
		"no id":            {"id": {"<xss>"}},
		"no webhook":       {"all": {"yes"}, "webhook": {"<xss>"}},
		"more than a page": {"id": many},
	} {
		w := l.post(t, l.all, "/dead-letters/redeliver", form)
		require.Equal(t, http.StatusUnprocessableEntity, w.Code, name)
		require.NotContains(t, w.Body.String(), "<xss", name)
	}
	for body, want := range map[string]int{"all=yes&type=%zz": http.StatusBadRequest, "id=" + strings.Repeat("x", 2<<20): http.StatusRequestEntityTooLarge} {
		for _, path := range []string{"/dead-letters/redeliver", "/events", "/event-types"} {
			require.Equal(t, want, l.send(t, l.all, path, body).Code, path)
		}
	}
	for _, path := range []string{"/dead-letters?webhook=x", "/dead-letters?cursor=forged", "/events?cursor=forged", "/event-types?cursor=forged"} {
		status, _ := l.get(t, l.all, path)
		require.Equal(t, http.StatusUnprocessableEntity, status, path)
	}
}
