package browser_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// look is how somebody sees the pages.
type look struct {
	name          string
	scheme        string
	width, height int64
}

var (
	phone = look{"phone", "light", 360, 740}
	desk  = look{"light", "light", 1280, 800}
	night = look{"dark", "dark", 1280, 800}
)

// clinic is a program with something on every page: its paths by name.
func clinic(t *testing.T) (of *program, paths map[string]string) {
	t.Helper()
	of = startProgram(t)
	good, bad := harness.NewCollector(t), harness.NewCollector(t)
	good.Answer(func(harness.Request) harness.Response {
		return harness.Response{Body: []byte(`{"received": true, "by": "the clinic's receiver"}`)}
	})
	bad.Answer(failing)
	long := "/" + strings.Repeat("a-long-path-without-any-space/", 6)
	hook := of.subscribe("Cardiology: appointments of new patients", good.URL()+long, "event_types", "'{patient.*,visit.created,invoice.paid,x.y}'",
		"secret", "'a secret'", "headers", `'{"X-Department": "cardiology", "Authorization": "Bearer x"}'`,
		"filters", `'{"department": {"ne": "radiology"}}'`, "description", "'Tells the appointment desk.'")
	dead := of.subscribe("Billing", bad.URL()+long, "max_retries", "0")
	of.subscribe("Laboratory", bad.URL(), "event_types", "'{patient.created}'")
	of.subscribe("Archive", good.URL(), "is_active", "false", "tenant", "'another-tenant'")
	of.do(`INSERT INTO outbox.event_types (name, number, description, schema) VALUES
		('patient.created', 1, 'A patient was registered at the desk or online.', '{"type": "object", "required": ["department"], "properties": {"department": {"type": "string"}}}'),
		('invoice.paid', NULL, '', NULL)`)
	of.holds("the relay knows the webhooks", "SELECT count(*) >= 3 FROM outbox.routing")
	event := ask[string](of, `SELECT outbox.publish('patient.created', '{"department": "cardiology", "patient": {"id": 42, "name": "A. Example", "born": "1970-01-01"}, "note": "`+
		strings.Repeat("long ", 60)+strings.Repeat("x", 120)+`"}', key => 'patient-42', correlation_id => 'request-0190b6c4-5a7e-7cc0-8d2f-3f1e5a9b7c21', source => 'desk', headers => '{"traceparent": "00-1"}')::text`)
	for n := range 30 {
		of.publish("visit.created", fmt.Sprintf(`{"department": "cardiology", "n": %d}`, n))
	}
	of.holds("all is done", "SELECT (SELECT count(*) FROM outbox.dead_letters) = 31 AND (SELECT count(*) FROM outbox.calls WHERE status = 200) = 31")
	first := func(table, webhook string) string {
		return ask[string](of, "SELECT "+table+" FROM outbox.calls WHERE subscription_id = $1 LIMIT 1", webhook)
	}
	return of, map[string]string{
		"overview": "/", "webhooks": "/webhooks", "webhook": "/webhooks/" + hook, "webhook-failing": "/webhooks/" + dead,
		"webhook-new": "/webhooks/new", "webhook-edit": "/webhooks/" + hook + "/edit", "dead-letters": "/dead-letters",
		"delivery": "/deliveries/" + first("delivery_id::text", hook), "delivery-dead": "/deliveries/" + first("delivery_id::text", dead),
		"events": "/events", "event": "/events/" + event, "event-types": "/event-types", "slot": "/slot", "error": "/nothing",
	}
}

// everyPage opens all pages with everything on them unfolded. Nothing may be wider than the screen.
func everyPage(l look) func(*testing.T, *browser) {
	return func(t *testing.T, b *browser) {
		of, paths := clinic(t)
		p := b.newPage(t, of)
		p.watch.allow("404")
		p.do(scheme(l.scheme), chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
			_, err := cdp.Call(ctx, t, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
				Width: l.width, Height: l.height, DeviceScaleFactor: 1, Mobile: l.width < 600,
			})
			return err
		}))
		p.open("/login")
		p.seenAs(l, "login")
		p.fill("#token", token)
		p.follow("form[data-login] button")
		for name, path := range paths {
			p.open(path)
			p.settle(name)
			p.seenAs(l, name)
			if eval[int](p, `[...document.querySelectorAll("main details:not([open])")].map(d => d.open = true).length`) > 0 {
				p.seenAs(l, name+"-unfolded")
			}
		}
	}
}

// settle waits for what comes after the page itself.
func (p *page) settle(name string) {
	p.t.Helper()
	switch name {
	case "slot":
		p.has("#doctor h3")
	case "overview":
		p.until("the charts have numbers", `document.querySelector("[data-value=queue_depth]").textContent !== "–"`)
	}
}

// seenAs checks that the page fits and takes a picture of it, if a directory for them is named.
func (p *page) seenAs(l look, name string) {
	p.t.Helper()
	wide := eval[[]string](p, `(() => {
		const most = document.documentElement.clientWidth;
		if (document.documentElement.scrollWidth <= most && document.documentElement.scrollWidth <= innerWidth) return [];
		return [document.documentElement.scrollWidth + " > " + most, ...[...document.querySelectorAll("body *")]
			.filter(e => e.getBoundingClientRect().right > most + 1 && !e.closest(".scroll, pre")).map(e => e.outerHTML.slice(0, 120))];
	})()`)
	require.Empty(p.t, wide, "%s on a %s is wider than the screen", name, l.name)
	require.Empty(p.t, eval[[]string](p, `[...document.querySelectorAll(".scroll:has(table.cards)")]
		.filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.innerText.slice(0, 200))`), "%s on a %s: lists that need sideways scrolling", name, l.name)
	directory := os.Getenv("WALHOOK_TEST_SCREENSHOTS")
	if directory == "" {
		return
	}
	picture, err := chromedp.Run(p.ctx, chromedp.FullScreenshot(100))
	require.NoError(p.t, err)
	require.NoError(p.t, os.MkdirAll(directory, 0o755))
	require.NoError(p.t, os.WriteFile(filepath.Join(directory, name+"-"+l.name+".png"), picture, 0o644))
}
