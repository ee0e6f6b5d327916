package ui_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/admin"
)

func TestEventsAreFoundByEachField(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	ids := map[string]uuid.UUID{
		"created": l.event(t, published{Type: "patient.created", Key: "p 1", Correlation: "c&1", Payload: `{"n": 1}`}),
		"updated": l.event(t, published{Type: "patient.updated", Key: "p 1"}),
		"other":   l.event(t, published{Type: "order.created", Correlation: "c&1"}),
	}
	for query, want := range map[string][]string{
		"":                        {"created", "updated", "other"},
		"?type=patient.created":   {"created"},
		"?type=patient.*":         {"created", "updated"},
		"?key=p+1":                {"created", "updated"},
		"?correlation=c%261":      {"created", "other"},
		"?type=order.*&key=p+1":   nil,
		"?type=+patient.created+": {"created"},
	} {
		body := l.page(t, "/events"+query)
		var found []string
		for name, id := range ids {
			if strings.Contains(body, "/events/"+id.String()) {
				found = append(found, name)
			}
		}
		require.ElementsMatch(t, want, found, query)
	}
	body := l.page(t, "/events?type=patient.created")
	require.Contains(t, body, `{&#34;n&#34;: 1}`)
	require.Contains(t, body, `<a href="/events?correlation=c%261">`)
	require.Contains(t, l.page(t, "/events?type=nothing"), "No event matches.")
}

func TestAnEventIsShownWhole(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	hook, other := l.webhook(t, "", "First"), l.webhook(t, "", "Second")
	event := l.event(t, published{
		Type: "patient.created", Key: "p1", Source: "ward", Correlation: "c1", Payload: `{"amount": 12345678901234567890.10}`,
		Headers: `{"traceparent": "00-abc"}`,
	})
	delivered := l.attempted(t, event, hook, 1, 200, "", "ok")
	dead := l.died(t, event, other, "status 500")
	body := l.page(t, "/events/"+event.String())
	for _, want := range []string{
		"patient.created", "ward", "12345678901234567890.10", "00-abc", "/deliveries/" + delivered.String(), "/deliveries/" + dead.String(),
		`<span class="badge ok">delivered</span>`, `<span class="badge bad">dead letter</span>`, "First", "Second", "status 500",
		`href="/events?key=p1"`, `href="/events?correlation=c1"`,
	} {
		require.Contains(t, body, want)
	}
}

func TestAnEventIsPublishedThroughTheForm(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.exec(t, `INSERT INTO outbox.event_types (name, schema) VALUES ('strict.one', '{"required": ["name"]}')`)
	form := url.Values{"type": {"patient.created"}, "key": {"p1"}, "tenant": {"t"}, "correlation_id": {"c"}, "data": {`{"amount": 12345678901234567890.10}`}}
	body := l.follow(t, l.post(t, l.all, "/events", form))
	require.Contains(t, body, "Published patient.created.")
	require.Contains(t, body, "12345678901234567890.10")
	require.Equal(t, 1, l.count(t, `SELECT count(*) FROM outbox.events WHERE type = 'patient.created' AND key = 'p1' AND tenant = 't' AND correlation_id = 'c'`))

	body = l.follow(t, l.post(t, l.all, "/events", url.Values{"type": {"strict.one"}}))
	require.Contains(t, body, "not as its type&#39;s schema says")
	require.Contains(t, body, "name")

	own := l.token(t, ptr("mine"), admin.ScopeRead, admin.ScopePublish)
	require.Equal(t, http.StatusSeeOther, l.post(t, own, "/events", url.Values{"type": {"x.y"}, "tenant": {"other"}}).Code)
	require.Equal(t, 1, l.count(t, `SELECT count(*) FROM outbox.events WHERE type = 'x.y' AND tenant = 'mine'`))
	_, body = l.get(t, own, "/events")
	require.Contains(t, body, `name="data"`)
	require.NotContains(t, body, `name="tenant"`)
	_, body = l.get(t, l.token(t, nil, admin.ScopeManage), "/events")
	require.NotContains(t, body, `name="data"`)
}

func TestAWrongEventIsShownAgain(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.exec(t, `INSERT INTO outbox.event_types (name, schema, validation) VALUES ('strict.one', '{"required": ["name"]}', 'reject')`)
	for name, c := range map[string]struct {
		form url.Values
		at   string // the id of what is wrong
	}{
		"type":   {url.Values{"type": {"has space <xss>"}, "data": {corpus}}, "publish-type-error"},
		"data":   {url.Values{"type": {"a"}, "data": {"{" + corpus}}, "publish-data-error"},
		"schema": {url.Values{"type": {"strict.one"}, "data": {`{}`}, "key": {corpus}}, "publish-data-error"},
		"key":    {url.Values{"type": {"a"}, "key": {strings.Repeat("<xss>", 300)}}, "publish-key-error"},
	} {
		w := l.post(t, l.all, "/events", c.form)
		require.Equal(t, http.StatusUnprocessableEntity, w.Code, name)
		require.Contains(t, w.Body.String(), `id="`+c.at+`"`, name)
		harmless(t, w.Body.String())
	}
	require.Equal(t, 0, l.count(t, "SELECT count(*) FROM outbox.events"))
}

func TestALongSearchGoesOn(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	wanted := l.event(t, published{Type: "wanted"})
	l.exec(t, "INSERT INTO outbox.events (type) SELECT 'other' FROM generate_series(1, 20001)")
	body := l.page(t, "/events?type=wanted")
	require.NotContains(t, body, wanted.String())
	require.Contains(t, body, "The search stopped")
	require.NotContains(t, body, "No event matches")
	body = l.page(t, link(t, body, `There are older ones: <a href="`))
	require.Contains(t, body, wanted.String())
}

func TestTheCatalogueListsAndAddsTypes(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	require.Contains(t, l.page(t, "/event-types"), "No event type is listed.")
	form := url.Values{"name": {"patient.created"}, "number": {"7"}, "description": {corpus}, "schema": {`{"title": "<xss>"}`}, "validation": {"reject"}}
	body := l.follow(t, l.post(t, l.all, "/event-types", form))
	harmless(t, body)
	for _, want := range []string{"Added patient.created.", `<td class="num" data-label="Number">7</td>`, "rejects what does not fit", `href="/events?type=patient.created"`} {
		require.Contains(t, body, want)
	}
	require.Equal(t, 1, l.count(t, `SELECT count(*) FROM outbox.event_types WHERE name = 'patient.created' AND number = 7 AND validation = 'reject'`))

	for name, c := range map[string]struct {
		change url.Values
		want   string
	}{
		"number":         {url.Values{"number": {"<xss>"}}, `id="type-number-error"`},
		"number too big": {url.Values{"number": {"99999999999"}, "description": {corpus}}, `id="type-number-error"`},
		"schema no JSON": {url.Values{"schema": {"{" + corpus}}, `id="type-schema-error"`},
		"schema":         {url.Values{"schema": {`{"type": "<xss>"}`}}, `id="type-schema-error"`},
		"name":           {url.Values{"name": {"has space <xss>"}}, `id="type-name-error"`},
		"twice":          {url.Values{"name": {"patient.created"}, "description": {corpus}}, `id="type-name-error"`},
	} {
		form := url.Values{"name": {"other"}, "validation": {"warn"}}
		for k, v := range c.change {
			form[k] = v
		}
		w := l.post(t, l.all, "/event-types", form)
		require.Equal(t, http.StatusUnprocessableEntity, w.Code, name)
		require.Contains(t, w.Body.String(), c.want, name)
		harmless(t, w.Body.String())
	}
	tenant := l.token(t, ptr(""), admin.ScopeManage)
	require.Equal(t, http.StatusForbidden, l.post(t, tenant, "/event-types", url.Values{"name": {"mine"}}).Code)
	status, body := l.get(t, tenant, "/event-types")
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, body, "patient.created")
	require.NotContains(t, body, `name="schema"`)
	require.Equal(t, 1, l.count(t, "SELECT count(*) FROM outbox.event_types"))
}
