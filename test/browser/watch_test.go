package browser_test

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	devpage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// watch notes what no page of ours may do.
type watch struct {
	host string // the only one that may be asked

	mu      sync.Mutex
	noted   []string
	allowed []string
}

// violations makes the browser tell of what the policy refused, also where its console is silent.
const violations = `document.addEventListener("securitypolicyviolation", (e) =>
	console.error("content security policy:", e.violatedDirective, e.blockedURI, e.sourceFile, e.sample));`

// watchful prepares a tab: it tells of violations, and behaves as if it had the focus although others are open.
func watchful(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
	if _, err := cdp.Call(ctx, t, devpage.AddScriptToEvaluateOnNewDocument, devpage.AddScriptToEvaluateOnNewDocumentParams{Source: violations}); err != nil {
		return chromedp.Void{}, err
	}
	_, err := cdp.Call(ctx, t, emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true})
	return chromedp.Void{}, err
}

// see is called with every event of the tab.
func (w *watch) see(event any) {
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		w.note("uncaught: %s %s", e.ExceptionDetails.Text, described(e.ExceptionDetails.Exception))
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeAssert {
			w.note("console.%s: %s", e.Type, described(e.Args...))
		}
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError || e.Entry.Source == log.EntrySourceSecurity {
			w.note("log: %s %s", e.Entry.Text, e.Entry.URL)
		}
	case *devpage.EventJavascriptDialogOpening:
		w.note("dialog: %s", e.Message)
	case *network.EventRequestWillBeSent:
		to, err := url.Parse(e.Request.URL)
		if err != nil || to.Scheme != "data" && to.Scheme != "about" && to.Host != w.host {
			w.note("request to another host: %s", e.Request.URL)
		}
	}
}

func described(objects ...*runtime.RemoteObject) string {
	var texts []string
	for _, o := range objects {
		if o != nil {
			texts = append(texts, strings.TrimSpace(o.Description+" "+string(o.Value)))
		}
	}
	return strings.Join(texts, " ")
}

func (w *watch) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.noted = append(w.noted, fmt.Sprintf(format, args...))
}

// allow takes notes with this text for what the test itself has brought about.
func (w *watch) allow(text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.allowed = append(w.allowed, text)
}

// problems are the notes that nobody has allowed.
func (w *watch) problems() (rest []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, note := range w.noted {
		allowed := false
		for _, text := range w.allowed {
			allowed = allowed || strings.Contains(note, text)
		}
		if !allowed {
			rest = append(rest, note)
		}
	}
	return rest
}
