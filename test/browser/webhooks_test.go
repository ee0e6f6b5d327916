package browser_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// A webhook is made in the browser, its first delivery appears while somebody looks, and so does it when it begins to fail.
func firstWebhook(t *testing.T, b *browser) {
	of := startProgram(t)
	c := harness.NewCollector(t)
	p := b.loggedIn(t, of)
	p.follow(`nav a[href="/webhooks"]`)
	p.shows("main", "There are no webhooks yet.")
	p.follow(`a[href="/webhooks/new"]`)
	p.fill("#f-name", "clinic")
	p.fill("#f-url", "ftp://clinic.example/")
	p.watch.allow("422")
	p.follow("main form button.primary")
	p.has("#f-url[aria-invalid=true]")
	p.fill("#f-url", c.URL()+"/hook")
	p.fill("#f-events", "patient.*\nvisit.created")
	p.follow("main form button.primary")
	p.shows(".notice.ok", "The webhook “clinic” was made.")
	p.shows("#live", "Nothing has been sent yet.")
	p.live()
	eval[bool](p, "window.sameDocument = true")

	of.holds("the relay knows the webhook", "SELECT count(*) = 1 FROM outbox.routing")
	of.publish("patient.created", `{"patient": 1}`)
	p.has("#live tr[id^=call-] .badge.ok")
	p.shows("#badge.ok", "ok")
	p.shows("#live", "last hour 1 1 0 100 %")

	c.Answer(failing)
	of.publish("visit.created", `{}`)
	p.shows("#badge.bad", "failing")
	p.shows("#live tr[id^=call-]", "500")
	p.has("#live .card.bad")
	require.True(t, eval[bool](p, "window.sameDocument === true"), "all of it without loading the page again")

	p.follow(`nav a[href="/webhooks"]`)
	p.shows("tbody .badge.bad", "failing")
	p.live()
	eval[bool](p, "window.sameDocument = true")
	c.Answer(nil)
	of.publish("patient.created", `{"patient": 2}`)
	p.shows("tbody .badge.ok", "ok")
	require.True(t, eval[bool](p, "window.sameDocument === true"))
}

// What the buttons on a webhook's page do.
func webhookActions(t *testing.T, b *browser) {
	of := startProgram(t)
	c := harness.NewCollector(t)
	id := of.subscribe("clinic", c.URL(), "secret", "'the old secret'", "event_types", "'{patient.*}'")
	of.holds("the relay knows the webhook", "SELECT count(*) = 1 FROM outbox.routing")
	of.publish("patient.created", `{"patient": 1}`)
	c.Wait(1, soon)
	p := b.loggedIn(t, of)
	home := "/webhooks/" + id
	p.open(home)

	c.Script(harness.Response{Status: 202, Body: []byte("thank you kindly")})
	p.click("#test summary")
	p.fill("#test-event_type", "patient.updated")
	p.fill("#test-test_data", `{"made": "up"}`)
	eval[bool](p, "window.sameDocument = true")
	p.click("#test button")
	p.shows("#test .notice.ok", "The test was delivered.")
	p.shows("#test .notice.ok", "202")
	p.shows("#test .notice.ok pre", "thank you kindly")
	require.True(t, eval[bool](p, "window.sameDocument === true"))
	require.Contains(t, string(c.Wait(2, soon)[1].Body), `{"made": "up"}`)
	p.fill("#test-test_data", `{"made": `)
	p.watch.allow("422")
	p.click("#test button")
	p.has("#test-test_data[aria-invalid=true]")
	p.shows("#test-test_data-error", "it is no JSON")

	p.follow(`form[action$="/deactivate"] button`)
	p.shows(".notice.ok", "The webhook is inactive")
	p.shows("#badge.idle", "inactive")
	p.follow(`form[action$="/activate"] button`)
	p.shows(".notice.ok", "The webhook is active.")
	require.True(t, ask[bool](of, "SELECT is_active FROM outbox.subscriptions"))

	p.click("#rotate summary")
	p.fill("#rotate-secret", "the new secret")
	p.fill("#rotate-overlap_hours", "0")
	p.follow("#rotate button")
	p.shows(".notice.ok", "The secret was changed.")

	p.click("#replay summary")
	p.set("#replay-since", time.Now().UTC().Add(-time.Hour).Format("2006-01-02T15:04:05"))
	p.follow("#replay button")
	p.shows(".notice.ok", "The replay was asked for.")
	again := c.Wait(3, soon)
	require.Equal(t, again[0].ID(), again[2].ID(), "the same delivery")
	require.Equal(t, signed("the new secret", again[2].Body), again[2].Header.Get("X-Webhook-Signature"))
	p.until("the replayed call is shown", `document.querySelectorAll("#live tr[id^=call-]").length === 3`)

	p.follow(`#live tr[id^=call-] a`)
	p.shows("#delivery-state .badge.ok", "delivered")

	p.open(home)
	p.click("#delete summary")
	p.click("#delete input[name=confirm]")
	p.follow("#delete button.danger")
	p.at("/webhooks")
	p.shows(".notice.ok", "The webhook was deleted.")
	require.Zero(t, ask[int](of, "SELECT count(*) FROM outbox.subscriptions"))
}

func signed(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

// Of two people who change a webhook at the same time, the second sees what the first has done before anything is lost.
func staleForm(t *testing.T, b *browser) {
	of := startProgram(t)
	id := of.subscribe("clinic", "http://127.0.0.1:1/", "is_active", "false", "description", "'as it was'")
	p := b.loggedIn(t, of)
	p.open("/webhooks/" + id + "/edit")
	of.do("UPDATE outbox.subscriptions SET description = 'as somebody else wants it', name = 'hospital'")
	p.fill("#f-description", "as I want it")
	p.watch.allow("412")
	p.follow("main form button.primary")
	p.shows(".notice.warn", "Somebody else has changed this webhook")
	p.shows("main form", "Stored now: as somebody else wants it")
	p.shows("main form", "Stored now: hospital")
	require.Equal(t, "as I want it", eval[string](p, `document.querySelector("#f-description").value`))
	p.follow("main form button.primary")
	p.shows(".notice.ok", "The changes were saved.")
	require.Equal(t, "clinic as I want it", ask[string](of, "SELECT name || ' ' || description FROM outbox.subscriptions"))
}

// Dead letters are chosen and sent again.
func deadLetters(t *testing.T, b *browser) {
	of := startProgram(t)
	c := harness.NewCollector(t)
	c.Answer(failing)
	id := of.subscribe("clinic", c.URL(), "max_retries", "0")
	of.holds("the relay knows the webhook", "SELECT count(*) = 1 FROM outbox.routing")
	of.publish("patient.created", `{"patient": 1}`)
	of.publish("patient.deleted", `{"patient": 1}`)
	of.holds("both are dead", "SELECT count(*) = 2 FROM outbox.dead_letters")

	p := b.loggedIn(t, of)
	p.follow(`nav a[href="/dead-letters"]`)
	p.shows("tbody tr", "clinic patient.created")
	p.shows("tbody tr", "500")
	p.fill("input[name=type]", "patient.deleted")
	p.follow(`form[role=search] button`)
	p.until("the filter holds", `document.querySelectorAll("tbody tr").length === 1`)
	p.follow(`tbody tr td a[href^="/deliveries/"]`)
	p.shows("#delivery-state .badge.bad", "dead letter")
	p.shows("#delivery-attempts details[open]", "out of order")
	p.live()

	c.Answer(nil)
	p.follow(`form[action$="/redeliver"] button`)
	p.shows(".notice.ok", "The delivery is on its way again.")
	p.shows("#delivery-state .badge.ok", "delivered")
	p.until("both attempts are shown", `document.querySelectorAll("#delivery-attempts details").length === 2`)

	p.follow(`nav a[href="/dead-letters"]`)
	p.until("the other is left", `document.querySelectorAll("tbody tr").length === 1`)
	p.click("tbody input[type=checkbox]")
	p.follow("button[form=chosen]")
	p.shows(".notice.ok", "Sent again: 1.")
	p.shows("main", "There are no dead letters.")
	requests := c.Wait(4, soon)
	require.Equal(t, "2", requests[3].Header.Get("X-Webhook-Attempt"))
	of.holds("it is delivered", "SELECT dead = 0 AND succeeded = 2 FROM outbox.subscription_stats WHERE subscription_id = $1", id)
}

// A page that somebody leaves open finds the program again after it was away, and says so meanwhile.
func reconnects(t *testing.T, b *browser) {
	of := startProgram(t)
	c := harness.NewCollector(t)
	of.subscribe("clinic", c.URL())
	p := b.loggedIn(t, of)
	p.open("/webhooks")
	p.live()
	eval[bool](p, "window.sameDocument = true")

	p.watch.allow("htmx:sse:error")
	p.watch.allow("ERR_CONNECTION_REFUSED")
	p.watch.allow("ERR_INCOMPLETE_CHUNKED_ENCODING")
	p.watch.allow("ERR_CONNECTION_RESET")
	p.watch.allow("ERR_EMPTY_RESPONSE")
	of.Kill()
	p.shows("[data-live].idle", "reconnecting")
	of.env = append(of.env, "WALHOOK_LISTEN="+of.host())
	of.start()
	p.live()
	of.publish("patient.created", `{}`)
	c.Wait(1, soon)
	p.shows("tbody .badge.ok", "ok")
	require.True(t, eval[bool](p, "window.sameDocument === true"))

	of.do("UPDATE outbox.api_tokens SET revoked_at = now()") // none of ours is in there: the page stays
	response, err := http.Get(of.url + "/healthz")
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	p.live()
}
