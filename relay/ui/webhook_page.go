package ui

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/walhook/walhook/relay/admin"
)

// callsPerPage is how many calls a webhook's page shows at once.
const callsPerPage = 20

// looksAtLeast is how often a webhook's row and calls are looked at although its statistics stay the same: a switch by
// somebody else, or an alert, is seen that much later.
const looksAtLeast = 10 * time.Second

// webhookPage is what the page of one webhook shows.
type webhookPage struct {
	webhookState
	Tenants bool // say whose it is
	Live    string
	Actions webhookActions
}

// Filters are the webhook's as people read them; empty: none.
func (p webhookPage) Filters() string { return filterText(p.Webhook.Filters) }

// PreviousUntil is how long the secret before this one still signs; nil: it does no more, though the row may tell when it did.
func (p webhookPage) PreviousUntil() *time.Time {
	if until := p.Webhook.PreviousExpires; until != nil && until.After(time.Now()) {
		return until
	}
	return nil
}

// webhookState is the part that is rendered again while the page is open. Nothing in it depends on scopes.
type webhookState struct {
	Webhook admin.Webhook
	Badge   webhookBadge
	Stats   admin.Stats
	Windows []webhookWindow
	Alerts  []admin.Alert
	Calls   []admin.Call
	Outcome string // of the calls shown: success, failed; empty: all
	First   string // path of the newest calls; empty: these are they
	Next    string // of older ones; empty: there are none
	Gone    bool   // somebody has deleted it
}

// webhookWindow is a row of the statistics.
type webhookWindow struct {
	Name string
	admin.Numbers
}

// webhook shows one webhook.
func (u *UI) webhook(w http.ResponseWriter, v *visit) error {
	return u.webhookWith(w, v, http.StatusOK, webhookActions{})
}

// webhookWith shows a webhook's page with what came of an action.
func (u *UI) webhookWith(w http.ResponseWriter, v *visit, status int, actions webhookActions) error {
	look, err := newWebhookLook(v)
	if err != nil {
		return err
	}
	state, err := look.look(v.Context())
	if err != nil {
		return err
	}
	data := webhookPage{
		webhookState: state,
		Tenants:      v.who.Everywhere(),
		Live:         look.path("/live"),
		Actions:      actions.orDefaults(),
	}
	return u.page(w, v, "webhook", view{Title: state.Webhook.Name, Section: "webhooks", Status: status, Data: data})
}

// webhookLive renders badge, statistics and calls again whenever they have changed.
func (u *UI) webhookLive(w http.ResponseWriter, v *visit) error {
	look, err := newWebhookLook(v)
	if err != nil {
		return err
	}
	if _, err := v.desk.Webhook(v.Context(), look.id); err != nil { // told before the stream begins
		return err
	}
	return u.hub.serve(w, v, look.path("/live"), func(ctx context.Context) ([]message, error) {
		state, err := look.look(ctx)
		if missing(err) {
			state, err = webhookState{Gone: true}, nil
		}
		if err != nil {
			return nil, err
		}
		html, err := u.html(v, "webhook", "live", state)
		return []message{{data: html}}, err
	})
}

func missing(err error) bool {
	var e *admin.Error
	return errors.As(err, &e) && e.Kind == admin.NotFound
}

// webhookLook looks at one webhook again and again. Its statistics, one small query, say whether anything was attempted
// since; as long as nothing was, the rest is what it was.
type webhookLook struct {
	desk   *admin.Desk
	id     uuid.UUID
	filter admin.CallFilter
	last   webhookState
	at     time.Time // of the last whole look
}

// newWebhookLook reads what a request asks for.
func newWebhookLook(v *visit) (*webhookLook, error) {
	id, err := pathUUID(v, text("webhook.word"))
	if err != nil {
		return nil, err
	}
	query := v.URL.Query()
	outcome := query.Get("outcome")
	if !slices.Contains([]string{"", "success", "failed"}, outcome) {
		return nil, &admin.Error{Kind: admin.Invalid, Field: "outcome", Message: text("webhook.outcome_unknown")}
	}
	f := admin.CallFilter{Outcome: outcome, Limit: callsPerPage, Cursor: query.Get("cursor")}
	return &webhookLook{desk: v.desk, id: id, filter: f}, nil
}

func (l *webhookLook) look(ctx context.Context) (webhookState, error) {
	stats, err := l.desk.WebhookStats(ctx, l.id)
	if err != nil {
		return webhookState{}, err
	}
	state := l.last
	if l.at.IsZero() || time.Since(l.at) >= looksAtLeast || attempted(stats, l.last.Stats) {
		if state, err = l.whole(ctx); err != nil {
			return state, err
		}
	}
	state.Stats = stats
	state.Windows = []webhookWindow{
		{text("webhook.window.hour"), stats.LastHour}, {text("webhook.window.day"), stats.LastDay},
		{text("webhook.window.week"), stats.LastWeek}, {text("webhook.window.all"), stats.Numbers},
	}
	state.Badge = badgeOf(state.Webhook, stats.ConsecutiveFailures, stats.LastAttemptAt)
	l.last = state
	return state, nil
}

// attempted reports whether there are attempts in a that b does not know.
func attempted(a, b admin.Stats) bool {
	if a.LastAttemptAt == nil || b.LastAttemptAt == nil {
		return a.LastAttemptAt != b.LastAttemptAt
	}
	return a.Total != b.Total || !a.LastAttemptAt.Equal(*b.LastAttemptAt)
}

// whole looks at everything but the statistics.
func (l *webhookLook) whole(ctx context.Context) (state webhookState, err error) {
	if state.Webhook, err = l.desk.Webhook(ctx, l.id); err != nil {
		return state, err
	}
	calls, err := l.desk.Calls(ctx, l.id, l.filter)
	if err != nil {
		return state, err
	}
	if state.Alerts, err = l.desk.WebhookAlerts(ctx, l.id); err != nil {
		return state, err
	}
	state.Calls, state.Outcome = calls.Items, l.filter.Outcome
	state.First, state.Next = pager("/webhooks/"+l.id.String(), given("outcome", l.filter.Outcome), l.filter.Cursor, calls.Next)
	l.at = time.Now()
	return state, nil
}

// path is that of the page, with what it shows of the calls; part is what follows the id.
func (l *webhookLook) path(part string) string {
	return withQuery("/webhooks/"+l.id.String()+part, given("outcome", l.filter.Outcome, "cursor", l.filter.Cursor))
}
