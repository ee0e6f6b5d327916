package browser_test

import (
	"encoding/json"
	"net"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// evil is markup that ends whatever it may stand in and would show itself by an attribute or by what it runs.
const evil = `</textarea></title></script></pre>"'><script data-evil>window.pwned = 1</script><img data-evil src=x onerror="window.pwned = 1">` +
	`<a data-evil href="javascript:window.pwned = 1">{{.}} ${window.pwned = 1}</a><b data-evil hx-get="/logout" hx-trigger="load"></b>`

// evilType is the same for names of event types, which have no spaces.
const evilType = `"'><img/data-evil=''/src=x/onerror=window.pwned=1><a/data-evil=''/href=javascript:pwned=1>`

// Whatever applications, receivers and other users write is shown as text.
func markupStaysText(t *testing.T, b *browser) {
	of := startProgram(t)
	c := harness.NewCollector(t)
	c.Answer(func(harness.Request) harness.Response { return harness.Response{Status: 500, Body: []byte(evil)} })
	p := b.loggedIn(t, of)
	hook := p.makeEvil(c.URL() + "/?q=%3Cimg%20onerror%3E'&<b>")
	chatter := of.subscribe(evil[:255], chatterbox(t, evil), "max_retries", "0")
	of.do("INSERT INTO outbox.event_types (name, description, schema) VALUES ($1, $2, $3)", evilType, evil, map[string]string{"description": evil})
	of.holds("the relay knows the webhooks", "SELECT count(*) = 2 FROM outbox.routing")
	payload, err := json.Marshal(map[string]string{"text": evil, evil: "text"})
	require.NoError(t, err)
	event := ask[string](of, `SELECT outbox.publish($1, $2::jsonb, key => $3, source => $3, correlation_id => substr($3, 1, 255),
		headers => jsonb_build_object('x', $3::text))::text`, evilType, payload, evil[:255])
	of.holds("both are dead", "SELECT count(*) = 2 FROM outbox.dead_letters")

	delivery := func(webhook string) string {
		return "/deliveries/" + ask[string](of, "SELECT id::text FROM outbox.dead_letters WHERE subscription_id = $1", webhook)
	}
	for _, path := range []string{
		"/", "/webhooks", "/webhooks/" + hook, "/webhooks/" + hook + "/edit", "/webhooks/" + chatter, delivery(hook), delivery(chatter),
		"/events", "/events/" + event, "/dead-letters", "/dead-letters?webhook=" + hook, "/event-types", "/slot",
		"/events?type=" + url.QueryEscape(evilType) + "&key=" + url.QueryEscape(evil[:255]) + "&correlation=" + url.QueryEscape(evil[:255]),
		"/dead-letters?type=" + url.QueryEscape(evilType),
	} {
		p.open(path)
		p.harmless(path)
		if path != "/" && path != "/slot" {
			require.Contains(t, eval[string](p, `document.body.innerText + [...document.querySelectorAll("input, textarea")].map(i => i.value)`), "data-evil", path)
		}
	}
	p.watch.allow("Failed to load resource") // of the pages that say so
	for _, path := range []string{
		"/events?cursor=" + url.QueryEscape(evil), "/webhooks/" + url.PathEscape(evil), "/deliveries/" + url.PathEscape(evil),
		"/webhooks?status=" + url.QueryEscape(evil), "/nothing/" + url.PathEscape(evil), "/dead-letters?webhook=" + url.QueryEscape(evil),
	} {
		p.open(path)
		p.harmless(path)
	}
	p.liveMarkup(of, hook)
}

// liveMarkup has foreign text come by a live update and by a test, whose answers scripts put into the page.
func (p *page) liveMarkup(of *program, hook string) {
	p.t.Helper()
	p.open("/webhooks/" + hook)
	p.live()
	calls := eval[int](p, `document.querySelectorAll("#live tr[id^=call-]").length`)
	of.publish(evilType, `{}`)
	p.until("the next call is shown", `document.querySelectorAll("#live tr[id^=call-]").length === 1 + `+jsonOf(p, calls))
	p.click("#test summary")
	p.fill("#test-event_type", evilType)
	p.fill("#test-test_data", jsonOf(p, map[string]string{"text": evil}))
	p.click("#test button")
	p.shows("#test .notice pre", "<script data-evil>")
	p.harmless("a test's answer")
	p.fill("#test-test_data", evil)
	p.click("#test button")
	p.has("#test-test_data[aria-invalid=true]")
	p.harmless("a test that is refused")
}

func jsonOf(p *page, value any) string {
	p.t.Helper()
	text, err := json.Marshal(value)
	require.NoError(p.t, err)
	return string(text)
}

// makeEvil makes a webhook whose name, description and header are markup, through the form.
func (p *page) makeEvil(to string) (id string) {
	p.t.Helper()
	p.open("/webhooks/new")
	p.fill("#f-name", evil[:255])
	p.fill("#f-url", to)
	p.fill("#f-description", evil)
	p.click("#g-request summary")
	p.fill("#f-headers", "X-Evil: "+evil)
	p.fill("#f-filters", `{"`+"<img data-evil>"+`": {"exists": false}}`)
	p.click("#g-retries summary")
	p.fill("#f-max_retries", "0")
	p.watch.allow("422")
	p.follow("main form button.primary")
	if eval[bool](p, `!!document.querySelector("#f-url[aria-invalid=true]")`) {
		p.harmless("the form that is refused")
		to, _, _ = strings.Cut(to, "<")
		p.fill("#f-url", to)
		p.follow("main form button.primary")
	}
	p.has("#live")
	p.harmless("the notice that it was made")
	return eval[string](p, `location.pathname.split("/").pop()`)
}

// harmless requires that nothing of the markup has become part of the page, but that it is there as text.
func (p *page) harmless(where string) {
	p.t.Helper()
	p.has("footer")
	require.Equal(p.t, "[]", eval[string](p, `JSON.stringify([...document.querySelectorAll(
		"[data-evil], [onerror], script:not([src]), iframe, a[href^='javascript:' i], b[hx-get]")].map(e => e.outerHTML))`), where)
	require.True(p.t, eval[bool](p, `window.pwned === undefined`), where)
}

// chatterbox answers what is no HTTP, which clients quote in their errors.
func chatterbox(t *testing.T, text string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte(text + "\r\n\r\n"))
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		require.NoError(t, listener.Close())
		<-done
	})
	return "http://" + listener.Addr().String() + "/"
}
