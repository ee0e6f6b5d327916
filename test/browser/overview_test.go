package browser_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// drawn counts the pixels of a chart that have the colour of one of its series.
const drawn = `((field, colour) => {
	const canvas = document.querySelector("[data-series*=" + field + "] canvas");
	if (!canvas || !canvas.width) return 0;
	const probe = document.createElement("canvas").getContext("2d");
	probe.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(colour).trim();
	probe.fillRect(0, 0, 1, 1);
	const [r, g, b] = probe.getImageData(0, 0, 1, 1).data;
	const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
	let n = 0;
	for (let i = 0; i < data.length; i += 4)
		if (data[i + 3] > 100 && Math.abs(data[i] - r) + Math.abs(data[i + 1] - g) + Math.abs(data[i + 2] - b) < 60) n++;
	return n;
})`

// The overview's numbers and charts move while somebody looks, and all that the navigation offers opens.
func overview(t *testing.T, b *browser) {
	of := startProgram(t)
	c := harness.NewCollector(t)
	c.Answer(failing)
	of.subscribe("clinic", c.URL())
	of.holds("the relay knows the webhook", "SELECT count(*) = 1 FROM outbox.routing")
	p := b.loggedIn(t, of)
	p.live()
	p.shows("#state.ok", "running")
	require.True(t, eval[bool](p, `(() => {
		const nav = document.querySelector("header nav"), badge = document.querySelector("[data-live]");
		const left = nav.getBoundingClientRect().left;
		badge.hidden = true;
		const before = nav.getBoundingClientRect().left;
		badge.hidden = false;
		return left === before;
	})()`), "whoever is about to click must not have the navigation move away")
	p.until("every chart is drawn", `document.querySelectorAll("[data-series] canvas").length === document.querySelectorAll("[data-series]").length`)
	require.Equal(t, 5, eval[int](p, `document.querySelectorAll("[data-series]").length`))
	p.until("there is a first number", `document.querySelector("[data-value=queue_depth]").textContent === "0"`)
	eval[bool](p, "window.sameDocument = true")

	for range 20 {
		of.publish("patient.created", `{}`)
	}
	p.until("the queue is counted", `document.querySelector("[data-value=queue_depth]").textContent === "20"`)
	p.shows("#now", "20 deliveries waiting")
	p.until("commits are counted", `parseFloat(document.querySelector("[data-value=events]").textContent) > 0`)
	p.until("failures are counted", `parseFloat(document.querySelector("[data-value=failed]").textContent) > 0`)
	for field, colour := range map[string]string{"events": "--series-1", "failed": "--series-3", "queue_depth": "--series-1", "lag_bytes": "--series-1"} {
		p.until("a line is drawn for "+field, fmt.Sprintf(`%s(%q, %q) > 5`, drawn, field, colour))
	}
	require.True(t, eval[bool](p, "window.sameDocument === true"))

	titles := map[string]string{
		"/": "Overview", "/webhooks": "Webhooks", "/dead-letters": "Dead letters", "/events": "Events",
		"/slot": "Slot and relay", "/event-types": "Event types",
	}
	for _, path := range eval[[]string](p, `[...document.querySelectorAll("header nav a")].map(a => a.getAttribute("href"))`) {
		p.follow(fmt.Sprintf(`header nav a[href=%q]`, path))
		p.at(path)
		p.shows("h1", titles[path])
		require.Equal(t, path, eval[string](p, `document.querySelector("header nav a[aria-current=page]").getAttribute("href")`))
		delete(titles, path)
	}
	require.Empty(t, titles, "not in the navigation")
	p.follow("footer a")
	p.shows("body", "/webhooks/{id}/rotate-secret")
}

// Behind a proxy that gives it a part of a site, no link, form or stream leads out of that part.
func underAPath(t *testing.T, b *browser) {
	of := startProgram(t, "WALHOOK_PATH_PREFIX=/hooks")
	of.url += "/hooks"
	c := harness.NewCollector(t)
	p := b.newPage(t, of)
	p.open("/webhooks")
	p.at("/login?next=%2Fwebhooks")
	p.insert(token)
	p.press(enter)
	p.at("/webhooks")
	p.follow("main a.button")
	p.fill("#f-name", "clinic")
	p.fill("#f-url", c.URL())
	p.follow("main form button.primary")
	p.shows(".notice.ok", "The webhook “clinic” was made.")
	p.live()
	of.holds("the relay knows the webhook", "SELECT count(*) = 1 FROM outbox.routing")
	of.publish("patient.created", `{}`)
	p.has("#live tr[id^=call-] .badge.ok")
	p.click("#test summary")
	p.click("#test button")
	p.shows("#test .notice.ok", "The test was delivered.")
	for _, section := range []string{"/", "/webhooks", "/dead-letters", "/events", "/slot", "/event-types"} {
		p.follow(fmt.Sprintf(`header nav a[href="/hooks%s"]`, section))
		require.Equal(t, "[]", eval[string](p, `JSON.stringify([...document.querySelectorAll("[href], [src], [action], [hx-get], [hx-post]")]
			.flatMap(e => ["href", "src", "action", "hx-get", "hx-post", "hx-sse:connect"].map(a => e.getAttribute(a)))
			.filter(a => a && !a.startsWith("#") && !a.startsWith("/hooks/")))`), section)
	}
	p.open("/")
	p.live()
	p.until("charts have numbers", `document.querySelector("[data-value=queue_depth]").textContent === "0"`)
	p.follow("header .who form button")
	p.at("/login")
}

// The theme follows the system until somebody chooses, and charts follow it.
func theme(t *testing.T, b *browser) {
	p := b.loggedIn(t, startProgram(t))
	background := func() string {
		t.Helper()
		return eval[string](p, "getComputedStyle(document.body).backgroundColor")
	}
	p.do(scheme("light"))
	light := background()
	p.do(scheme("dark"))
	dark := background()
	require.NotEqual(t, light, dark)

	p.click("[data-theme-toggle]")
	require.Equal(t, light, background())
	p.open("/webhooks")
	require.Equal(t, light, background(), "it was chosen for all pages")
	p.do(scheme("light"))
	p.click("[data-theme-toggle]")
	require.Equal(t, dark, background())
}

func scheme(name string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}},
		})
		return err
	})
}

// Whoever has no mouse gets everywhere.
func keyboard(t *testing.T, b *browser) {
	of := startProgram(t)
	p := b.newPage(t, of)
	p.open("/login")
	p.insert(token)
	p.press(enter)
	p.at("/")

	p.open("/webhooks/new")
	p.press(tab)
	require.Equal(t, "skip", eval[string](p, "document.activeElement.className"), "the first is the way past the navigation")
	require.True(t, eval[bool](p, "document.activeElement.getBoundingClientRect().left >= 0"), "which is seen")
	reached := p.tabThrough()
	for _, path := range []string{"/", "/webhooks", "/dead-letters", "/events", "/slot", "/event-types", "/api/v1/docs"} {
		require.Contains(t, reached, "a "+path)
	}
	for _, name := range []string{"f-name", "f-url", "f-events", "f-secret", "f-description", "f-is_active"} {
		require.Contains(t, reached, "#"+name)
	}
	require.Contains(t, reached, "summary g-request")
	require.Contains(t, reached, "button Create webhook")
	require.Contains(t, reached, "button Log out")

	p.open("/webhooks/new")
	p.press(tab)
	p.press(enter)
	require.Equal(t, "content", eval[string](p, "document.activeElement.id"), "past the navigation")
	p.press(tab)
	require.Equal(t, "f-name", eval[string](p, "document.activeElement.id"))
	p.insert("clinic")
	p.press(tab)
	p.insert("http://127.0.0.1:1/")
	p.press(enter)
	p.shows(".notice.ok", "The webhook “clinic” was made.")
}

// tabThrough presses Tab until the focus has left the page, and says what had it on the way.
func (p *page) tabThrough() (reached []string) {
	p.t.Helper()
	for range 200 {
		p.press(tab)
		at := eval[string](p, `(() => {
			const e = document.activeElement;
			if (!e || e === document.body) return "";
			if (e.id) return "#" + e.id;
			if (e.tagName === "A") return "a " + e.getAttribute("href");
			if (e.tagName === "SUMMARY") return "summary " + e.parentElement.id;
			return e.tagName.toLowerCase() + " " + e.innerText;
		})()`)
		if at == "" || len(reached) > 0 && at == "a #content" {
			return reached
		}
		reached = append(reached, at)
	}
	require.Fail(p.t, "the focus never leaves the page", "%v", reached)
	return nil
}

// Where scripts are switched off, forms and links do the same.
func withoutScripts(t *testing.T, b *browser) {
	of := startProgram(t)
	c := harness.NewCollector(t)
	p := b.newPage(t, of)
	p.do(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
		return err
	}))
	p.open("/login")
	p.fill("#token", token)
	p.follow("form[data-login] button")
	p.shows("noscript", "Charts and live updates take JavaScript.")

	p.open("/webhooks/new")
	p.fill("#f-name", "clinic")
	p.fill("#f-url", c.URL())
	p.follow("main form button.primary")
	p.shows(".notice.ok", "The webhook “clinic” was made.")
	p.click("#test summary")
	p.follow("#test button")
	p.shows("#test .notice.ok", "The test was delivered.")
	p.follow(`form[action$="/deactivate"] button`)
	p.shows("#badge", "inactive")

	p.open("/slot")
	p.follow("#doctor a")
	p.shows("#doctor .badge", "in order")
	p.follow(`form[action="/logout"] button`)
	p.at("/login")
}
