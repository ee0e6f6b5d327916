// Package browser_test looks at the dashboard as people do: a real browser, driven over its debugging pipe, opens the pages
// of the built program and clicks. Whatever a page writes to the console as an error, throws, is refused by its content
// security policy or asks of another host fails the test.
//
// Without a Chromium the tests are skipped; WALHOOK_TEST_BROWSER=required makes that a failure. WALHOOK_TEST_SCREENSHOTS
// names a directory that pictures of all pages are written to.
package browser_test

import (
	"testing"
	"time"

	"github.com/walhook/walhook/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// soon bounds what should happen at once; it is generous because the machine may be busy.
const soon = 30 * time.Second

// TestDashboard shares one browser between its parts. Each has a program, a database and a session of its own.
func TestDashboard(t *testing.T) {
	t.Parallel()
	b := startBrowser(t)
	for name, part := range map[string]func(*testing.T, *browser){
		"login form":               loginForm,
		"login link":               loginLink,
		"login from elsewhere":     loginFromElsewhere,
		"first webhook":            firstWebhook,
		"dead letters":             deadLetters,
		"markup stays text":        markupStaysText,
		"overview":                 overview,
		"theme":                    theme,
		"keyboard":                 keyboard,
		"without scripts":          withoutScripts,
		"actions on a webhook":     webhookActions,
		"events and catalogue":     eventsAndCatalogue,
		"slot and doctor":          slotAndDoctor,
		"under a path":             underAPath,
		"stale form":               staleForm,
		"reconnects by itself":     reconnects,
		"every page on a phone":    everyPage(phone),
		"every page on a desk":     everyPage(desk),
		"every page in the dark":   everyPage(night),
		"what a reader cannot do":  reader,
		"what a tenant cannot see": tenant,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			part(t, b)
		})
	}
}
