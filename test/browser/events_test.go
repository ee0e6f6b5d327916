package browser_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// Events are found by type, key and correlation id, published, and described in the catalogue.
func eventsAndCatalogue(t *testing.T, b *browser) {
	of := startProgram(t)
	c := harness.NewCollector(t)
	of.subscribe("clinic", c.URL())
	of.holds("the relay knows the webhook", "SELECT count(*) = 1 FROM outbox.routing")
	of.do(`SELECT outbox.publish('patient.created', '{"n": 1}', key => 'p-1', correlation_id => 'c-1')`)
	of.do(`SELECT outbox.publish('visit.created', '{"n": 2}', key => 'p-1', correlation_id => 'c-2')`)
	c.Wait(2, soon)
	p := b.loggedIn(t, of)

	p.follow(`nav a[href="/events"]`)
	search := func(input, text string, rows int) {
		t.Helper()
		p.fill(input, text)
		p.follow("form[role=search] button")
		require.Equal(t, rows, eval[int](p, `document.querySelectorAll("tbody tr").length`), text)
		p.follow(`form[role=search] a[href="/events"]`)
	}
	search("input[name=type]", "visit.*", 1)
	search("input[name=key]", "p-1", 2)
	search("input[name=correlation]", "c-1", 1)
	p.follow(`tbody a[href*="correlation=c-2"]`)
	p.follow(`tbody a[href^="/events/"]`)
	p.shows("h1", "visit.created")
	p.shows("pre.code", `"n": 2`)
	p.follow(`tbody a[href^="/deliveries/"]`)
	p.shows("#delivery-state .badge.ok", "delivered")

	p.follow(`nav a[href="/event-types"]`)
	p.click("#add summary")
	p.fill("#type-name", "invoice.paid")
	p.fill("#type-number", "7")
	p.fill("#type-schema", `{"type": "object", "required": ["amount"]`)
	p.set("#type-validation", "reject")
	p.watch.allow("422")
	p.follow("#add button.primary")
	p.has("#add[open] #type-schema[aria-invalid=true]")
	p.fill("#type-schema", `{"type": "object", "required": ["amount"]}`)
	p.follow("#add button.primary")
	p.shows(".notice.ok", "Added invoice.paid.")
	p.shows("tbody tr", "7 invoice.paid")

	p.open("/events")
	p.click("#publish summary")
	p.fill("#publish-type", "invoice.paid")
	p.fill("#publish-data", `{"currency": "EUR"}`)
	p.follow("#publish button.primary")
	p.has("#publish[open] #publish-data[aria-invalid=true]")
	require.Equal(t, `{"currency": "EUR"}`, eval[string](p, `document.querySelector("#publish-data").value`))
	p.fill("#publish-data", `{"currency": "EUR", "amount": 12.50}`)
	p.follow("#publish button.primary")
	p.shows(".notice.ok", "Published invoice.paid.")
	require.Contains(t, string(c.Wait(3, soon)[2].Body), `12.50`)
}

// The doctor is asked when somebody opens the page, and the numbers of the slot stay fresh.
func slotAndDoctor(t *testing.T, b *browser) {
	of := startProgram(t)
	p := b.loggedIn(t, of)
	p.follow(`nav a[href="/slot"]`)
	p.shows("#slot-relay .badge.ok", "running")
	p.shows("#slot-live", "a relay reads it")
	p.shows("#doctor .badge", "in order")
	p.has("#doctor details summary code")
	p.has("#forecast dl.facts")
	p.live()
	eval[bool](p, `document.querySelector("#doctor p").marked = true`)
	p.click("#doctor p a")
	p.until("the doctor has answered again", `document.querySelector("#doctor p").marked === undefined`)
	p.shows("#doctor .badge", "in order")
	numbers := func() string {
		t.Helper()
		return eval[string](p, `document.querySelector("#slot-live").innerText`)
	}
	old := numbers()
	of.publish("patient.created", `{}`)
	p.until("the numbers have moved", `document.querySelector("#slot-live").innerText !== `+jsonOf(p, old))
}
