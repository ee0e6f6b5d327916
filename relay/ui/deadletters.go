package ui

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/walhook/walhook/relay/admin"
)

func (u *UI) deadLetterRoutes() []route {
	return []route{
		{pattern: "GET /dead-letters", scope: admin.ScopeRead, handle: u.deadLetters},
		{pattern: "POST /dead-letters/redeliver", scope: admin.ScopeManage, handle: u.redeliverDead},
	}
}

// mostDead is how many dead letters one press of a button sends again.
const mostDead = 1000

// deadPage is what deadletters.html shows.
type deadPage struct {
	Items         []admin.DeadLetter
	Webhook, Type string // the filter
	Webhooks      []admin.Webhook
	Filtered      bool
	Short         bool   // the search stopped before the page was full
	First, Next   string // paths; empty: this is the first, the last page
	Most          int
}

func (u *UI) deadLetters(w http.ResponseWriter, v *visit) error {
	query := v.URL.Query()
	filter, err := deadFilter(query)
	if err != nil {
		return err
	}
	filter.Cursor, filter.Limit = query.Get("cursor"), admin.DefaultLimit
	dead, err := v.desk.DeadLetters(v.Context(), filter)
	if err != nil {
		return err
	}
	webhooks, err := v.desk.Webhooks(v.Context(), nil, admin.MaxLimit, "")
	if err != nil {
		return err
	}
	p := deadPage{Items: dead.Items, Type: filter.Type, Webhooks: webhooks.Items, Most: mostDead}
	if filter.Webhook != nil {
		p.Webhook = filter.Webhook.String()
		p.Webhooks = withChosen(p.Webhooks, *filter.Webhook)
	}
	p.Short = dead.Next != "" && len(dead.Items) < admin.DefaultLimit
	p.Filtered = p.Webhook != "" || p.Type != ""
	p.First, p.Next = pager("/dead-letters", chosenDead(filter), filter.Cursor, dead.Next)
	return u.page(w, v, "deadletters", view{Title: text("dead.title"), Section: "dead", Data: p})
}

// withChosen adds a webhook that is filtered by to the ones to choose from, if it is none of them: deleted, or one of very
// many.
func withChosen(webhooks []admin.Webhook, id uuid.UUID) []admin.Webhook {
	if slices.ContainsFunc(webhooks, func(w admin.Webhook) bool { return w.ID == id }) {
		return webhooks
	}
	return append(webhooks, admin.Webhook{ID: id, Name: id.String()})
}

// deadFilter reads the filter from a query or a form.
func deadFilter(values url.Values) (admin.DeadFilter, error) {
	f := admin.DeadFilter{Type: strings.TrimSpace(values.Get("type"))}
	if text := strings.TrimSpace(values.Get("webhook")); text != "" {
		id, err := uuid.Parse(text)
		if err != nil {
			return f, wrongID("webhook", text)
		}
		f.Webhook = &id
	}
	return f, nil
}

func wrongID(field, value string) error {
	return &admin.Error{Kind: admin.Invalid, Field: field, Message: text("id.wrong", start(value, 64))}
}

// chosenDead is the filter as a query.
func chosenDead(f admin.DeadFilter) url.Values {
	webhook := ""
	if f.Webhook != nil {
		webhook = f.Webhook.String()
	}
	return given("webhook", webhook, "type", f.Type)
}

// pager returns the paths of the first and of the next page of a list; empty where one is there.
func pager(path string, filter url.Values, cursor, next string) (first, after string) {
	if cursor != "" {
		first = withQuery(path, filter)
	}
	if next != "" {
		filter.Set("cursor", next)
		after = withQuery(path, filter)
		filter.Del("cursor")
	}
	return first, after
}

func withQuery(path string, values url.Values) string {
	if len(values) == 0 {
		return path
	}
	return path + "?" + values.Encode()
}

// redeliverDead sends those again that were ticked, or all that the filter chooses.
func (u *UI) redeliverDead(w http.ResponseWriter, v *visit) error {
	filter, err := deadFilter(v.PostForm)
	if err != nil {
		return err
	}
	redeliver := redeliverChosen
	if v.PostForm.Get("all") != "" {
		redeliver = func(v *visit) (string, error) { return redeliverAll(v, filter) }
	}
	notice, err := redeliver(v)
	if err != nil {
		return err
	}
	return u.done(w, v, withQuery("/dead-letters", chosenDead(filter)), notice)
}

// redeliverAll sends at most mostDead again and says what is left.
func redeliverAll(v *visit, f admin.DeadFilter) (string, error) {
	n, err := v.desk.RedeliverDead(v.Context(), f, mostDead)
	if err != nil {
		return "", err
	}
	notice := text("dead.sent", n)
	// What was done stands, whether or not the look at the rest succeeds.
	f.Limit = 1
	left, err := v.desk.DeadLetters(v.Context(), f)
	switch {
	case err != nil || len(left.Items) == 0:
		return notice, nil
	case n < mostDead:
		return notice + " " + text("dead.stuck"), nil
	}
	return notice + " " + text("dead.more"), nil
}

// redeliverChosen sends each of the ticked ones again. One that cannot be leaves the others alone.
func redeliverChosen(v *visit) (string, error) {
	ids, err := chosenIDs(v.PostForm["id"])
	if err != nil {
		return "", err
	}
	sent, failed, first := 0, 0, error(nil)
	for _, id := range ids {
		err := v.desk.Redeliver(v.Context(), id)
		var ours *admin.Error
		switch {
		case err == nil:
			sent++
		case !errors.As(err, &ours) || v.Context().Err() != nil:
			return "", err
		default:
			if failed++; first == nil {
				first = err
			}
		}
	}
	notice := text("dead.sent", sent)
	if failed > 0 {
		notice += " " + text("dead.not_sent", failed, start(first.Error(), 300))
	}
	return notice, nil
}

func chosenIDs(texts []string) ([]uuid.UUID, error) {
	if len(texts) == 0 {
		return nil, &admin.Error{Kind: admin.Invalid, Field: "id", Message: text("dead.none_chosen")}
	}
	if len(texts) > admin.MaxLimit {
		return nil, &admin.Error{Kind: admin.Invalid, Field: "id", Message: text("dead.too_many", len(texts), admin.MaxLimit)}
	}
	ids := make([]uuid.UUID, len(texts))
	for i, t := range texts {
		id, err := uuid.Parse(t)
		if err != nil {
			return nil, wrongID("id", t)
		}
		ids[i] = id
	}
	return ids, nil
}
