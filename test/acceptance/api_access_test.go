package acceptance_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// operation is one of those that the API says it has.
type operation struct {
	id, method, path string
	scope            string
}

// operations reads the API's own description.
func (c *client) operations() []operation {
	c.t.Helper()
	var all []operation
	for path, methods := range c.get("/openapi.json").is(200).object().part("paths").members {
		for method, one := range methods.(map[string]any) {
			o := object{c.t, one.(map[string]any)}
			security := o.list("security")
			require.Len(c.t, security, 1, path)
			scopes := security[0].members["bearer"].([]any)
			require.Len(c.t, scopes, 1, path)
			all = append(all, operation{o.text("operationId"), strings.ToUpper(method), path, scopes[0].(string)})
		}
	}
	require.Greater(c.t, len(all), 15)
	slices.SortFunc(all, func(a, b operation) int { return strings.Compare(a.id, b.id) })
	return all
}

// call sends an operation with an id in its path.
func (c *client) call(o operation, id, body string) reply {
	c.t.Helper()
	return c.send(o.method, strings.ReplaceAll(o.path, "{id}", id), body)
}

// Every route takes a token with the scope that its description names, and the description has every route of the contract.
func TestEveryRouteTakesItsScope(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := db.start()
	nobody := r.client("")
	operations := nobody.operations()
	var described []string
	for _, o := range operations {
		described = append(described, o.method+" "+o.path)
	}
	require.Subset(t, described, []string{
		"POST /webhooks/", "GET /webhooks/", "GET /webhooks/{id}", "PUT /webhooks/{id}", "PATCH /webhooks/{id}", "DELETE /webhooks/{id}",
		"POST /webhooks/{id}/activate", "POST /webhooks/{id}/deactivate", "POST /webhooks/{id}/test", "POST /webhooks/{id}/rotate-secret",
		"POST /webhooks/{id}/replay", "GET /webhooks/{id}/stats", "GET /webhooks/{id}/calls", "GET /webhooks/system/stats",
		"POST /webhooks/events/trigger", "GET /event-types", "POST /event-types", "GET /replication", "POST /deliveries/{id}/redeliver",
	})

	opens := map[string][]string{"read": {"read"}, "manage": {"read", "manage"}, "publish": {"publish"}}
	clients := map[string]*client{}
	for scope := range opens {
		clients[scope] = r.client(db.newToken("--name", scope, "--scope", scope))
	}
	id := uuid.NewString() // of nothing: what is let in changes nothing either
	for _, o := range operations {
		refused := nobody.call(o, id, "{}").refused(401, "")
		require.Contains(t, refused.text("detail"), "walhook token create")
		for scope, c := range clients {
			a := c.call(o, id, `{}`)
			if slices.Contains(opens[scope], o.scope) {
				require.NotContains(t, []int{401, 403, 405, 429, 500, 503}, a.status, "%s with scope %s: %s", o.id, scope, a.text)
				continue
			}
			require.Contains(t, a.refused(403, "").text("detail"), o.scope)
			require.Contains(t, a.header.Get("WWW-Authenticate"), "insufficient_scope")
		}
	}
	require.Zero(t, ask[int](db, "SELECT count(*) FROM outbox.subscriptions"))
	r.terminate(soon)
}

// tenant is one of two that share a relay.
type tenant struct {
	*client
	name              string
	webhook, delivery string
}

// newTenant makes a token of a tenant, a webhook with it, and a delivery to that.
func (db *database) newTenant(r *relay, name string) *tenant {
	db.t.Helper()
	c := &tenant{client: r.client(db.newToken("--name", "of "+name, "--scope", "read,manage,publish", "--tenant", name)), name: name}
	receiver := harness.NewCollector(db.t)
	c.webhook = c.post("/webhooks/", `{"name": "of `+name+`", "url": "`+receiver.URL()+`", "events": ["visit.*"]}`).is(201).
		object().has(`{"tenant": "` + name + `"}`).text("id")
	c.delivery = c.post("/webhooks/"+c.webhook+"/test", "").is(200).object().text("delivery_id")
	return c
}

// matrix says for every operation what a tenant-bound token may do with its own, and what an answer to another tenant is. A
// row that is missing fails the test: whoever adds an operation says here whose it is.
var matrix = map[string]struct {
	body         string
	own, foreign int
}{
	"create-webhook":     {`{"name": "n", "url": "https://example.com", "tenant": "TENANT", "is_active": false}`, 201, 422},
	"list-webhooks":      {"", 200, 0},
	"get-webhook":        {"", 200, 404},
	"replace-webhook":    {`{"name": "replaced", "url": "http://127.0.0.1:1/", "events": ["visit.*"]}`, 200, 404},
	"update-webhook":     {`{"description": "changed"}`, 200, 404},
	"delete-webhook":     {"", 204, 404},
	"activate-webhook":   {"", 200, 404},
	"deactivate-webhook": {"", 200, 404},
	"test-webhook":       {`{"event_type": "a b"}`, 422, 404}, // of its own, it is the type that is refused
	"rotate-secret":      {`{"new_secret": "correct horse battery staple"}`, 200, 404},
	"replay-webhook":     {`{"since": "2026-01-01T00:00:00Z"}`, 202, 404},
	"get-webhook-stats":  {"", 200, 404},
	"list-calls":         {"", 200, 404},
	"get-system-stats":   {"", 200, 0},
	"trigger-event":      {`{"event_type": "visit.ended", "tenant": "TENANT"}`, 202, 403},
	"list-event-types":   {"", 200, 0},
	"create-event-type":  {`{"name": "visit.ended"}`, 403, 403}, // they are everybody's
	"get-replication":    {"", 403, 403},                        // it is the whole system's
	"redeliver":          {"", 202, 404},
}

// A token of one tenant sees and changes that one's rows and no others, whichever way it asks.
func TestTenantsSeeOnlyTheirOwn(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := db.start()
	north, south, empty := db.newTenant(r, "north"), db.newTenant(r, "south"), db.newTenant(r, "")
	operations := r.client("").operations()
	rows := func() string {
		return ask[string](db, `SELECT concat_ws(' ', (SELECT string_agg(s::text, ' ' ORDER BY id) FROM outbox.subscriptions s),
			(SELECT count(*) FROM outbox.deliveries), (SELECT count(*) FROM outbox.attempts), (SELECT count(*) FROM outbox.events),
			(SELECT count(*) FROM outbox.replays), (SELECT count(*) FROM outbox.event_types))`)
	}
	before := rows()
	for _, pair := range [][2]*tenant{{north, south}, {south, north}, {north, empty}, {empty, north}} {
		for _, o := range operations {
			pair[0].isRefusedWith(o, pair[1])
		}
	}
	require.Equal(t, before, rows(), "nobody changed anything of another's")
	for _, c := range []*tenant{north, south, empty} {
		c.seesItsOwnAlone()
		for _, o := range operations {
			if o.id != "delete-webhook" {
				c.may(o)
			}
		}
		c.may(operation{id: "delete-webhook", method: http.MethodDelete, path: "/webhooks/{id}"})
	}
	require.Equal(t, 3, ask[int](db, "SELECT count(*) FROM outbox.subscriptions WHERE name = 'n'"))
	require.Equal(t, 3, ask[int](db, "SELECT count(DISTINCT tenant) FROM outbox.events"))
	r.terminate(soon)
}

// at returns an operation's path and body for what is a tenant's.
func (c *tenant) at(o operation) (path, body string) {
	id := c.webhook
	if strings.HasPrefix(o.path, "/deliveries/") {
		id = c.delivery
	}
	return strings.ReplaceAll(o.path, "{id}", id), strings.ReplaceAll(matrix[o.id].body, "TENANT", c.name)
}

// isRefusedWith asks for another's, which must look like what is not there at all.
func (c *tenant) isRefusedWith(o operation, other *tenant) {
	c.t.Helper()
	require.Contains(c.t, matrix, o.id, "whose is it?")
	expected := matrix[o.id].foreign
	if expected == 0 {
		return
	}
	path, body := other.at(o)
	if o.id == "trigger-event" && other.name == "" {
		return // there the empty tenant stands for none given, which is the token's own
	}
	if o.id == "create-webhook" || o.id == "trigger-event" {
		require.Contains(c.t, c.send(o.method, path, body).refused(expected, "body.tenant").text("detail"), "tenant")
		return
	}
	detail := c.send(o.method, path, body).refused(expected, "").text("detail")
	id, unknown := other.webhook, &tenant{webhook: uuid.NewString(), delivery: uuid.NewString()}
	if strings.HasPrefix(o.path, "/deliveries/") {
		id, unknown.webhook = other.delivery, unknown.delivery
	}
	path, body = unknown.at(o)
	nothing := c.send(o.method, path, body).refused(expected, "").text("detail")
	require.Equal(c.t, strings.ReplaceAll(nothing, unknown.webhook, id), detail, "%s tells that it is there", o.id)
}

// may does with its own what it may.
func (c *tenant) may(o operation) {
	c.t.Helper()
	path, body := c.at(o)
	c.send(o.method, path, body).is(matrix[o.id].own)
}

func (c *tenant) seesItsOwnAlone() {
	c.t.Helper()
	webhooks := c.get("/webhooks/").is(200).items()
	require.Len(c.t, webhooks, 1)
	webhooks[0].has(`{"id": "` + c.webhook + `", "tenant": "` + c.name + `"}`)
	c.get("/webhooks/system/stats").is(200).object().has(`{"webhooks": 1, "total": 1}`)
	c.get("/webhooks/" + c.webhook + "/calls").is(200).items()[0].has(`{"webhook_id": "` + c.webhook + `", "delivery_id": "` + c.delivery + `"}`)
}

// A cursor is no key: one tenant's shows another only its own rows.
func TestCursorsOfAnotherTenant(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := db.start()
	make3 := func(name string) *client {
		c := r.client(db.newToken("--name", name, "--scope", "manage", "--tenant", name))
		for range 3 {
			c.post("/webhooks/", `{"name": "`+name+`", "url": "https://example.com"}`).is(201)
		}
		return c
	}
	north, south := make3("north"), make3("south")
	cursor := south.get("/webhooks/?limit=1").is(200).object().text("next_cursor")
	seen := north.get("/webhooks/?cursor=" + cursor).is(200).items()
	require.Len(t, seen, 3)
	for _, one := range seen {
		one.has(`{"tenant": "north"}`)
	}
	r.terminate(soon)
}

// A token that has expired is none any more, for programs and for people; what is written down of it says so.
func TestExpiredTokens(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := db.start()
	c := r.client(db.newToken("--name", "brief", "--scope", "manage", "--expires-in", "1h"))
	c.get("/webhooks/").is(200)
	require.True(t, ask[bool](db, "SELECT last_used_at > now() - interval '1 min' FROM outbox.api_tokens"))
	db.do("UPDATE outbox.api_tokens SET expires_at = now()")
	a := c.get("/webhooks/")
	a.refused(401, "")
	require.Contains(t, a.header.Get("WWW-Authenticate"), "invalid_token")
	require.Contains(t, db.token("list").stdout, " expired ")
	r.terminate(soon)
}

// Whoever guesses tokens is slowed down; a good one from the same address goes on, for the API and the dashboard alike.
func TestGuessingIsSlowedDown(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := db.start()
	good := r.client(db.newToken("--name", "good"))
	good.get("/webhooks/").is(200)
	guess := func() reply { return good.with("whk_" + uuid.NewString()).get("/webhooks/") }
	var a reply
	for range 50 {
		if a = guess(); a.status != 401 {
			break
		}
	}
	require.Contains(t, a.refused(429, "").text("detail"), "try again")
	require.Regexp(t, `^[1-9]\d*$`, a.header.Get("Retry-After"))
	good.get("/webhooks/").is(200)
	good.with("").get("/webhooks/").is(401) // who sends none guesses nothing
	require.Equal(t, http.StatusTooManyRequests, r.tryLogin("whk_"+uuid.NewString()))
	require.NotContains(t, []int{http.StatusTooManyRequests, http.StatusUnauthorized}, r.tryLogin(good.token))
	r.terminate(soon)
}

// tryLogin sends a token to the dashboard's login and returns the HTTP status.
func (r *relay) tryLogin(token string) int {
	r.t.Helper()
	c := &client{t: r.t, base: r.url}
	return c.send(http.MethodPost, "/login", "token="+token, "Content-Type", "application/x-www-form-urlencoded").status
}

// Health and metrics are for everybody and stay at the root, API and dashboard are behind the prefix and take a token.
func TestWhatIsOpenAndWhatIsNot(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := db.start("--path-prefix", "/hooks")
	r.waitReady(200, "running")
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/hooks/api/v1/openapi.json", "/hooks/api/v1/docs", "/hooks/login"} {
		require.Equal(t, http.StatusOK, r.as("", path), path)
	}
	for _, path := range []string{"/api/v1/webhooks/", "/login", "/", "/hooksapi/v1/webhooks/", "/hooks/healthz/", "/hooks/../api/v1/webhooks/"} {
		require.Contains(t, []int{http.StatusNotFound, http.StatusSeeOther}, (&client{t: t, base: r.url}).get(path).status, path)
	}
	token := db.newToken("--name", "n", "--scope", "manage")
	c := &client{t: t, base: r.url + "/hooks/api/v1", token: token}
	made := c.post("/webhooks/", `{"name": "n", "url": "https://example.com"}`).is(201)
	require.Equal(t, "/hooks/api/v1/webhooks/"+made.object().text("id"), made.header.Get("Location"))
	description := c.get("/openapi.json").is(200).object()
	require.Equal(t, "/hooks/api/v1", description.list("servers")[0].text("url"))
	require.Regexp(t, `^3\.1\.`, description.text("openapi"))

	pages := &client{t: t, base: r.url + "/hooks"}
	for _, path := range []string{"/", "/webhooks", "/slot", "/dead-letters", "/no-such-page"} {
		a := pages.get(path)
		a.is(303)
		require.Regexp(t, `^/hooks/login`, a.header.Get("Location"), path)
	}
	login := pages.get("/login").is(200)
	require.Contains(t, login.header.Get("Content-Security-Policy"), "default-src 'none'")
	require.Contains(t, login.text, `type="password"`)
	a := pages.send(http.MethodPost, "/login", "token="+token, "Content-Type", "application/x-www-form-urlencoded").is(303)
	cookie := a.header.Get("Set-Cookie")
	for _, part := range []string{"HttpOnly", "SameSite=Strict", "Path=/hooks"} {
		require.Contains(t, cookie, part)
	}
	require.NotEqual(t, http.StatusOK, c.with("").send(http.MethodGet, "/webhooks/", "", "Cookie", strings.Split(cookie, ";")[0]).status, "a cookie opens pages, not the API")
	r.terminate(soon)
}
