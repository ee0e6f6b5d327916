package browser_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"
)

// page is a tab with its own session. Its methods fail the test when what they wait for does not come.
type page struct {
	t       *testing.T
	ctx     context.Context
	program *program
	watch   *watch
}

// newPage opens an empty tab.
func (b *browser) newPage(t *testing.T, of *program) *page {
	t.Helper()
	p := &page{t: t, program: of, watch: &watch{host: of.host()}}
	ctx, end := chromedp.NewContext(b.ctx, chromedp.WithNewBrowserContext(), chromedp.WithListener(p.watch.see))
	p.ctx = ctx
	t.Cleanup(func() {
		if t.Failed() {
			p.report()
		}
		end()
		require.Empty(t, p.watch.problems(), "what the browser complained of")
	})
	require.NoError(t, chromedp.Do(ctx, watchful))
	return p
}

// loggedIn opens a tab and logs in.
func (b *browser) loggedIn(t *testing.T, of *program) *page { return b.loggedInWith(t, of, token) }

func (b *browser) loggedInWith(t *testing.T, of *program, token string) *page {
	t.Helper()
	p := b.newPage(t, of)
	p.open("/login")
	p.fill("#token", token)
	p.follow("form[data-login] button")
	p.at("/")
	return p
}

// report says what the page showed when the test failed.
func (p *page) report() {
	ctx, cancel := context.WithTimeout(p.ctx, 5*time.Second)
	defer cancel()
	shown, err := chromedp.Run(ctx, chromedp.Evaluate[string](`location.href + "\n" + document.body.innerText.slice(0, 3000)`))
	p.t.Logf("the page, %v:\n%s", err, shown)
}

// do runs actions, none of which may take long.
func (p *page) do(actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, soon)
	defer cancel()
	require.NoError(p.t, chromedp.Do(ctx, actions...))
}

// open loads a path of the program, wherever it leads.
func (p *page) open(path string) {
	p.t.Helper()
	p.do(chromedp.Navigate(p.program.url + path))
}

// follow clicks what leads to another page, and waits for that.
func (p *page) follow(selector string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, soon)
	defer cancel()
	_, err := chromedp.RunResponse(ctx, chromedp.Click(chromedp.CSS(selector)))
	require.NoError(p.t, err, "follow %s", selector)
}

// click clicks what stays on the page.
func (p *page) click(selector string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, soon)
	defer cancel()
	require.NoError(p.t, chromedp.Do(ctx, chromedp.Click(chromedp.CSS(selector))), "click %s", selector)
}

// fill replaces what stands in an input, as typing does.
func (p *page) fill(selector, text string) {
	p.t.Helper()
	require.True(p.t, eval[bool](p, fmt.Sprintf(`(() => {
		const input = document.querySelector(%q);
		if (!input) return false;
		input.scrollIntoView();
		input.focus();
		input.select();
		return document.activeElement === input;
	})()`, selector)), "%s takes no text", selector)
	p.insert(text)
}

// insert types into what has the focus.
func (p *page) insert(text string) {
	p.t.Helper()
	_, err := chromedp.Call(p.ctx, input.InsertText, input.InsertTextParams{Text: text})
	require.NoError(p.t, err)
}

// set gives an input a value that has no text of its own: dates and choices.
func (p *page) set(selector, value string) {
	p.t.Helper()
	require.True(p.t, eval[bool](p, fmt.Sprintf(`(() => { const i = document.querySelector(%q); i.value = %q; return i.value !== "" })()`, selector, value)))
}

// press presses a key.
func (p *page) press(key string) {
	p.t.Helper()
	p.do(chromedp.KeyEvent(key))
}

const (
	tab   = kb.Tab
	enter = kb.Enter
)

// eval computes an expression in the page.
func eval[T any](p *page, expression string) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, soon)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	require.NoError(p.t, err, expression)
	return value
}

// until waits until an expression is true. It goes on over a change of page, during which nothing can be computed.
func (p *page) until(what, expression string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, soon)
	defer cancel()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	var last error
	for {
		held, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("!!("+expression+")"))
		if err == nil && held {
			return
		}
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			last = err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			require.Fail(p.t, "waited in vain until "+what, "%s (%v)", expression, last)
		}
	}
}

// shows waits until an element that matches has the text, whatever its spaces.
func (p *page) shows(selector, text string) {
	p.t.Helper()
	p.until(selector+" shows "+text, fmt.Sprintf(`[...document.querySelectorAll(%q)].some(e => e.innerText.replace(/\s+/g, " ").includes(%q))`, selector, text))
}

// has waits until there is such an element.
func (p *page) has(selector string) {
	p.t.Helper()
	p.until("there is "+selector, fmt.Sprintf(`document.querySelector(%q)`, selector))
}

// hasNot waits until there is no such element.
func (p *page) hasNot(selector string) {
	p.t.Helper()
	p.until("there is no "+selector, fmt.Sprintf(`!document.querySelector(%q)`, selector))
}

// at waits until the address is that path.
func (p *page) at(path string) {
	p.t.Helper()
	p.until("the address is "+path, fmt.Sprintf(`document.readyState === "complete" && location.href === %q`, p.program.url+path))
}

// live waits until the page says that it is.
func (p *page) live() {
	p.t.Helper()
	p.has("[data-live].ok:not([hidden])")
}
