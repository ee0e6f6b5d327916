package browser_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// Who is not logged in is led to the login and from there to where they wanted to go; a wrong token is told.
func loginForm(t *testing.T, b *browser) {
	p := b.newPage(t, startProgram(t))
	p.open("/webhooks?status=active")
	p.at("/login?next=%2Fwebhooks%3Fstatus%3Dactive")
	require.Equal(t, "token", eval[string](p, "document.activeElement.id"), "typing may begin at once")

	p.watch.allow("401")
	p.insert("a-token-that-nobody-has-made")
	p.follow("form[data-login] button")
	p.shows("#token-error[role=alert]", "This token is not valid")
	require.Empty(t, eval[string](p, "document.querySelector('#token').value"), "a token is never sent back")

	p.fill("#token", token)
	p.press(enter)
	p.at("/webhooks?status=active")
	require.Empty(t, eval[string](p, "document.cookie"), "no script can read the session")

	p.follow(`form[action="/logout"] button`)
	p.at("/login")
	p.shows(".notice.ok", "You are logged out.")
	p.open("/webhooks")
	p.at("/login?next=%2Fwebhooks")
}

// A link with a token logs in, and leaves it neither in the address nor in the history.
func loginLink(t *testing.T, b *browser) {
	p := b.newPage(t, startProgram(t))
	p.open("/login#token=" + token)
	p.at("/")
	p.shows("h1", "Overview")
	entries, err := chromedp.Run(p.ctx, chromedp.NavigationEntries())
	require.NoError(t, err)
	for _, entry := range entries.Entries {
		require.NotContains(t, entry.URL, token)
	}

	p.watch.allow("401")
	p.follow(`form[action="/logout"] button`)
	p.open("/webhooks")
	p.open("/login?next=%2Fevents#token=no%20such%20token")
	p.shows("#token-error", "This token is not valid")
	p.at("/login")

	p.open("/login") // the link opened where the login page is open already
	p.open("/login#token=" + token)
	p.at("/")
}

// A link on another site logs nobody in who has not asked for it: they would work under a stranger's token.
func loginFromElsewhere(t *testing.T, b *browser) {
	of := startProgram(t)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = fmt.Fprintf(w, `<link rel="icon" href="data:,"><a href="%s/login#token=%s">free webhooks</a>`, of.url, token)
	}))
	t.Cleanup(elsewhere.Close)
	p := b.newPage(t, of)
	p.watch.allow("request to another host: " + elsewhere.URL)
	p.do(chromedp.Navigate(elsewhere.URL))
	p.follow("a")
	p.at("/login")
	require.Equal(t, token, eval[string](p, `document.querySelector("#token").value`))
	p.follow("form[data-login] button")
	p.at("/")
}

// A token with scope read shows everything and offers nothing that it may not do.
func reader(t *testing.T, b *browser) {
	of := startProgram(t)
	id := of.subscribe("clinic", "http://127.0.0.1:1/", "is_active", "false")
	event := of.publish("patient.created", `{}`)
	p := b.loggedInWith(t, of, of.newToken("--name", "reader"))
	for _, path := range []string{"/webhooks", "/webhooks/" + id, "/dead-letters", "/events", "/events/" + event, "/event-types", "/slot", "/"} {
		p.open(path)
		require.Equal(t, `["/logout"]`, p.posts(), path)
	}
	p.watch.allow("403")
	p.open("/webhooks/new")
	p.shows("main", "This takes a token with scope manage.")
}

// posts lists where the page's forms are posted to, as JSON.
func (p *page) posts() string {
	p.t.Helper()
	paths := eval[[]string](p, `[...document.forms].filter(f => f.method === "post").map(f => new URL(f.action).pathname)`)
	text, err := json.Marshal(paths)
	require.NoError(p.t, err)
	return string(text)
}

// A token of one tenant sees nothing of another, nor of the whole system.
func tenant(t *testing.T, b *browser) {
	of := startProgram(t)
	c := harness.NewCollector(t)
	of.subscribe("theirs", c.URL(), "tenant", "'theirs'")
	mine := of.subscribe("mine", c.URL(), "tenant", "'mine'")
	other := ask[string](of, "SELECT outbox.publish('their.event', '{}', tenant => 'theirs')::text")
	of.do("SELECT outbox.publish('my.event', '{}', tenant => 'mine')")
	c.Wait(2, soon)

	p := b.loggedInWith(t, of, of.newToken("--name", "n", "--tenant", "mine"))
	p.hasNot(`nav a[href="/slot"]`)
	p.open("/webhooks")
	p.shows("#webhook-"+mine, "mine")
	require.Equal(t, 1, eval[int](p, `document.querySelectorAll("tr[id^=webhook-]").length`))
	p.open("/events")
	p.shows("main", "my.event")
	require.NotContains(t, eval[string](p, "document.body.innerText"), "their")
	p.watch.allow("404")
	p.watch.allow("403")
	p.open("/events/" + other)
	p.shows("h1", "Nothing here")
	p.open("/slot")
	p.shows("main", "This concerns the whole system.")
}

// newToken makes a token with walhook token create.
func (p *program) newToken(args ...string) string {
	p.t.Helper()
	made := harness.StartProcess(p.t, p.cli, p.env, append([]string{"token", "create"}, args...)...)
	require.Zero(p.t, made.Wait(soon), made.Stderr())
	return strings.TrimSpace(made.Stdout())
}
