package api

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/walhook/walhook/relay/admin"
)

type statsAnswer struct{ Body admin.Stats }

type callsInput struct {
	WebhookInput
	PageInput
	Status string `query:"status" doc:"success, failed, or an HTTP status as 503" example:"failed"`
	Since  string `query:"since" doc:"Attempts from then on (RFC 3339)"`
	Until  string `query:"until" doc:"Attempts before then (RFC 3339)"`
}

type callsAnswer struct{ Body admin.Page[admin.Call] }

// insight registers statistics and the calls log.
func (s *server) insight() {
	register(s, operation{
		id: "get-system-stats", method: "GET", path: "/webhooks/system/stats", tag: tagInsight, summary: "Statistics over all webhooks",
		description: "The sums over the webhooks that there are (a deleted one counts no more); with a token of one tenant, over that tenant's.",
		scope:       admin.ScopeRead,
	}, func(ctx context.Context, c *call, _ *nothing) (*statsAnswer, error) {
		stats, err := c.desk.SystemStats(ctx)
		return &statsAnswer{stats}, err
	})
	register(s, operation{
		id: "get-webhook-stats", method: "GET", path: "/webhooks/{id}/stats", tag: tagInsight, summary: "Statistics of a webhook",
		description: "Since it was made, and for the last hour, day and week.",
		scope:       admin.ScopeRead, errors: []int{http.StatusNotFound},
	}, func(ctx context.Context, c *call, in *WebhookInput) (*statsAnswer, error) {
		id, err := parseID("webhook", in.ID)
		if err != nil {
			return nil, err
		}
		stats, err := c.desk.WebhookStats(ctx, id)
		return &statsAnswer{stats}, err
	})
	register(s, operation{
		id: "list-calls", method: "GET", path: "/webhooks/{id}/calls", tag: tagInsight, summary: "List attempts of a webhook, the newest first",
		scope: admin.ScopeRead, errors: []int{http.StatusNotFound, http.StatusUnprocessableEntity},
	}, s.calls)
}

func (s *server) calls(ctx context.Context, c *call, in *callsInput) (*callsAnswer, error) {
	f := admin.CallFilter{Limit: in.Limit, Cursor: in.Cursor}
	var p *problem
	if f.Outcome, f.Status, p = parseStatus(in.Status); p != nil {
		return nil, p
	}
	if f.Since, p = parseTime("since", in.Since); p != nil {
		return nil, p
	}
	if f.Until, p = parseTime("until", in.Until); p != nil {
		return nil, p
	}
	id, err := parseID("webhook", in.ID)
	if err != nil {
		return nil, err
	}
	page, err := c.desk.Calls(ctx, id, f)
	return &callsAnswer{page}, err
}

// parseStatus reads how calls ended: by outcome or by HTTP status.
func parseStatus(text string) (outcome string, status int, p *problem) {
	if text == "" || text == "success" || text == "failed" {
		return text, 0, nil
	}
	status, err := strconv.Atoi(text)
	if err != nil || status < 100 || status > 599 {
		return "", 0, wrong(http.StatusUnprocessableEntity, "query.status", "must be success, failed or an HTTP status from 100 to 599").with(text)
	}
	return "", status, nil
}

// parseTime reads a moment; none is the zero time.
func parseTime(name, text string) (time.Time, *problem) {
	if text == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return t, wrong(http.StatusUnprocessableEntity, "query."+name, "must be a time as in 2026-01-31T12:00:00Z (RFC 3339); write the + of an offset as %%2B").with(text)
	}
	return t, nil
}
