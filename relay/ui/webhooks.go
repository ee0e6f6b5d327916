package ui

import (
	"context"
	"net/http"
	"net/url"

	"github.com/walhook/walhook/relay/admin"
)

// webhooksPerPage is how many webhooks the list shows at once: what an open page looks at every few seconds.
const webhooksPerPage = 25

func (u *UI) webhookRoutes() []route {
	read, manage := admin.ScopeRead, admin.ScopeManage
	return []route{
		{pattern: "GET /webhooks", scope: read, handle: u.webhooks},
		{pattern: "GET /webhooks/live", scope: read, handle: u.webhooksLive},
		{pattern: "GET /webhooks/new", scope: manage, handle: u.newWebhook},
		{pattern: "POST /webhooks", scope: manage, handle: u.createWebhook},
		{pattern: "GET /webhooks/{id}", scope: read, handle: u.webhook},
		{pattern: "GET /webhooks/{id}/live", scope: read, handle: u.webhookLive},
		{pattern: "GET /webhooks/{id}/edit", scope: manage, handle: u.editWebhook},
		{pattern: "POST /webhooks/{id}/edit", scope: manage, handle: u.updateWebhook},
		{pattern: "POST /webhooks/{id}/test", scope: manage, handle: u.testWebhook},
		{pattern: "POST /webhooks/{id}/activate", scope: manage, handle: u.activateWebhook},
		{pattern: "POST /webhooks/{id}/deactivate", scope: manage, handle: u.deactivateWebhook},
		{pattern: "POST /webhooks/{id}/rotate-secret", scope: manage, handle: u.rotateSecret},
		{pattern: "POST /webhooks/{id}/replay", scope: manage, handle: u.replayWebhook},
		{pattern: "POST /webhooks/{id}/delete", scope: manage, handle: u.deleteWebhook},
	}
}

// webhookList is what the list shows. Nothing in it depends on scopes: everybody of a tenant who has the same page open
// gets it rendered once.
type webhookList struct {
	Status string // as in the API: active, inactive; empty: all
	Rows   []webhookRow
	First  string // path of the first page; empty: this is it
	Next   string // of the next page; empty: there is none
	Live   string // of the stream
}

type webhookRow struct {
	admin.Health
	Badge webhookBadge
}

// fewEvents is how many event types a row names; there may be a thousand.
const fewEvents = 3

// FewEvents are the first of the event types.
func (r webhookRow) FewEvents() []string { return r.Events[:min(len(r.Events), fewEvents)] }

// MoreEvents is how many there are besides.
func (r webhookRow) MoreEvents() int { return max(0, len(r.Events)-fewEvents) }

// webhooks lists webhooks with their health at a glance.
func (u *UI) webhooks(w http.ResponseWriter, v *visit) error {
	list, err := webhookListOf(v.Context(), v)
	if err != nil {
		return err
	}
	return u.page(w, v, "webhooks", view{Title: text("webhooks.title"), Section: "webhooks", Data: list})
}

// webhooksLive renders the list's table again whenever something in it has changed.
func (u *UI) webhooksLive(w http.ResponseWriter, v *visit) error {
	list, err := webhookListOf(v.Context(), v) // what is wrong with the request is told before the stream begins
	if err != nil {
		return err
	}
	return u.hub.serve(w, v, list.Live, func(ctx context.Context) ([]message, error) {
		list, err := webhookListOf(ctx, v)
		if err != nil {
			return nil, err
		}
		html, err := u.html(v, "webhooks", "table", list)
		return []message{{data: html}}, err
	})
}

func webhookListOf(ctx context.Context, v *visit) (webhookList, error) {
	query := v.URL.Query()
	list := webhookList{Status: query.Get("status")}
	active, err := activeOf(list.Status)
	if err != nil {
		return list, err
	}
	cursor := query.Get("cursor")
	page, err := v.desk.Healths(ctx, active, webhooksPerPage, cursor)
	if err != nil {
		return list, err
	}
	for _, h := range page.Items {
		list.Rows = append(list.Rows, webhookRow{Health: h, Badge: badgeOf(h.Webhook, h.ConsecutiveFailures, h.LastAttemptAt)})
	}
	list.First, list.Next = pager("/webhooks", given("status", list.Status), cursor, page.Next)
	list.Live = withQuery("/webhooks/live", given("status", list.Status, "cursor", cursor))
	return list, nil
}

// given makes a query of names and values, without those that are empty.
func given(pairs ...string) url.Values {
	values := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			values.Set(pairs[i], pairs[i+1])
		}
	}
	return values
}

// activeOf reads the filter that list and API have in common.
func activeOf(status string) (*bool, error) {
	active := status == "active"
	switch status {
	case "":
		return nil, nil
	case "active", "inactive":
		return &active, nil
	}
	return nil, &admin.Error{Kind: admin.Invalid, Field: "status", Message: text("webhooks.status_unknown")}
}
