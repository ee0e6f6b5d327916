package ui

import (
	"time"

	"github.com/walhook/walhook/relay/admin"
)

// webhookBadge says in one word how a webhook does. Class is a colour of app.css, which never stands alone.
type webhookBadge struct {
	Class string // ok, warn, bad or idle
	Word  string
	Why   string // for who wonders; may be empty
}

// quietAfter is how long without an attempt a webhook counts as one that has no traffic.
const quietAfter = time.Hour

// badgeOf judges a webhook: what keeps it from being delivered to comes before how deliveries went. One failed attempt
// counts, because nothing has succeeded since.
func badgeOf(w admin.Webhook, consecutiveFailures int64, lastAttempt *time.Time) webhookBadge {
	word := func(class, key, why string) webhookBadge {
		return webhookBadge{Class: class, Word: text("webhook.badge." + key), Why: why}
	}
	switch {
	case w.Status != "valid":
		return word("bad", "invalid", w.StatusReason)
	case !w.Active:
		return word("idle", "inactive", text("webhook.badge.inactive_why"))
	case w.Verification != "none" && w.VerifiedAt == nil:
		return word("warn", "unverified", text("webhook.badge.unverified_why"))
	case consecutiveFailures > 0:
		return word("bad", "failing", text("webhook.badge.failing_why"))
	case lastAttempt == nil || time.Since(*lastAttempt) > quietAfter:
		return word("idle", "quiet", text("webhook.badge.quiet_why"))
	default:
		return word("ok", "ok", "")
	}
}
