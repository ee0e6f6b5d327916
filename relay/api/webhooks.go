package api

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/google/uuid"

	"github.com/walhook/walhook/relay/admin"
)

// webhookAnswer is a webhook with its tag.
type webhookAnswer struct {
	ETag     string `header:"ETag" doc:"The revision, for If-Match"`
	Location string `header:"Location" hidden:"true"`
	Body     admin.Webhook
}

func answered(w admin.Webhook, err error) (*webhookAnswer, error) {
	if err != nil {
		return nil, err
	}
	return &webhookAnswer{ETag: etag(w.Revision), Body: w}, nil
}

// WebhookInput names a webhook.
type WebhookInput struct {
	ID string `path:"id" doc:"The webhook's id"`
}

// changeInput names a webhook and the revision that the caller knows.
type changeInput struct {
	WebhookInput
	IfMatch string `header:"If-Match" doc:"The ETag that was read: when the webhook has changed since, the answer is 412"`
}

// PageInput is what lists take.
type PageInput struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"500" default:"50" doc:"How many items a page has at most"`
	Cursor string `query:"cursor" doc:"next_cursor of the page before"`
}

type webhooksInput struct {
	PageInput
	Status string `query:"status" enum:"active,inactive" doc:"Only those whose is_active is true, or false"`
}

type webhooksAnswer struct{ Body admin.Page[admin.Webhook] }

// nothing is an answer without a body.
type nothing struct{}

// webhooks registers what makes, shows, changes and removes webhooks.
func (s *server) webhooks() {
	create, put, patch := s.webhookSchemas()
	register(s, operation{
		id: "create-webhook", method: "POST", path: "/webhooks/", tag: tagWebhooks, summary: "Create a webhook",
		scope: admin.ScopeManage, status: http.StatusCreated, body: jsonBody, schema: create, request: exampleCreate, response: exampleWebhook,
		errors: []int{http.StatusConflict},
	}, s.createWebhook)
	register(s, operation{
		id: "list-webhooks", method: "GET", path: "/webhooks/", tag: tagWebhooks, summary: "List webhooks, the newest first",
		scope: admin.ScopeRead, errors: []int{http.StatusUnprocessableEntity},
	}, s.listWebhooks)
	register(s, operation{
		id: "get-webhook", method: "GET", path: "/webhooks/{id}", tag: tagWebhooks, summary: "Show a webhook",
		scope: admin.ScopeRead, response: exampleWebhook, errors: []int{http.StatusNotFound},
	}, func(ctx context.Context, c *call, in *WebhookInput) (*webhookAnswer, error) {
		id, err := parseID("webhook", in.ID)
		if err != nil {
			return nil, err
		}
		return answered(c.desk.Webhook(ctx, id))
	})
	register(s, operation{
		id: "replace-webhook", method: "PUT", path: "/webhooks/{id}", tag: tagWebhooks, summary: "Replace a webhook",
		description: "What is left out gets its default, except for the secret, which stays. The answer of a GET sent back changes nothing: what cannot be set is ignored.",
		scope:       admin.ScopeManage, body: jsonBody, schema: put, request: exampleCreate, response: exampleWebhook,
		errors: []int{http.StatusNotFound, http.StatusConflict, http.StatusPreconditionFailed},
	}, s.replaceWebhook)
	register(s, operation{
		id: "update-webhook", method: "PATCH", path: "/webhooks/{id}", tag: tagWebhooks, summary: "Change a webhook",
		description: "Only what is given changes (JSON Merge Patch, RFC 7386): null removes secret and rate_limit. filters and headers are replaced as a whole.",
		scope:       admin.ScopeManage, body: patchBody, schema: patch, request: `{"max_retries": 5, "rate_limit": null}`, response: exampleWebhook,
		errors: []int{http.StatusNotFound, http.StatusConflict, http.StatusPreconditionFailed},
	}, s.updateWebhook)
	register(s, operation{
		id: "delete-webhook", method: "DELETE", path: "/webhooks/{id}", tag: tagWebhooks, summary: "Delete a webhook",
		description: "What waits for it becomes dead letters.",
		scope:       admin.ScopeManage, status: http.StatusNoContent, errors: []int{http.StatusNotFound, http.StatusPreconditionFailed},
	}, s.deleteWebhook)
}

func (s *server) createWebhook(ctx context.Context, c *call, _ *nothing) (*webhookAnswer, error) {
	b, p := decodeWebhook(c.body)
	if p == nil {
		p = b.required()
	}
	if p != nil {
		return nil, p
	}
	out, err := answered(c.desk.CreateWebhook(ctx, b.change()))
	if err == nil {
		out.Location = s.Prefix + Base + "/webhooks/" + out.Body.ID.String()
	}
	return out, err
}

func (s *server) listWebhooks(ctx context.Context, c *call, in *webhooksInput) (*webhooksAnswer, error) {
	var active *bool
	if in.Status != "" {
		wanted := in.Status == "active"
		active = &wanted
	}
	page, err := c.desk.Webhooks(ctx, active, in.Limit, in.Cursor)
	return &webhooksAnswer{page}, err
}

func (s *server) replaceWebhook(ctx context.Context, c *call, in *changeInput) (*webhookAnswer, error) {
	b, p := decodeWebhook(c.body, readOnly...)
	if p == nil {
		p = b.required()
	}
	if p != nil {
		return nil, p
	}
	b.whole()
	return s.change(ctx, c, in, b)
}

func (s *server) updateWebhook(ctx context.Context, c *call, in *changeInput) (*webhookAnswer, error) {
	b, p := decodeWebhook(c.body)
	if p != nil {
		return nil, p
	}
	return s.change(ctx, c, in, b)
}

// change is what PUT and PATCH have in common.
func (s *server) change(ctx context.Context, c *call, in *changeInput, b *webhookBody) (*webhookAnswer, error) {
	id, revision, err := s.target(ctx, c, in)
	if err != nil {
		return nil, err
	}
	if b.BackfillFrom.Value != nil {
		return nil, wrong(http.StatusUnprocessableEntity, "body.backfill_from", "is for new webhooks: replay this one instead")
	}
	if b.Tenant != nil {
		now, err := c.desk.Webhook(ctx, id)
		if err != nil {
			return nil, err
		}
		if now.Tenant != *b.Tenant {
			return nil, wrong(http.StatusUnprocessableEntity, "body.tenant", "cannot be changed: make a webhook of the other tenant")
		}
		b.Tenant = nil
	}
	out, err := answered(c.desk.UpdateWebhook(ctx, id, b.change(), revision))
	return out, s.stale(ctx, c, id, err)
}

func (s *server) deleteWebhook(ctx context.Context, c *call, in *changeInput) (*nothing, error) {
	id, revision, err := s.target(ctx, c, in)
	if err != nil {
		return nil, err
	}
	return nil, s.stale(ctx, c, id, c.desk.DeleteWebhook(ctx, id, revision))
}

// target is which webhook a change is for, and the revision that it must have; 0: any.
func (s *server) target(ctx context.Context, c *call, in *changeInput) (uuid.UUID, int, error) {
	id, err := parseID("webhook", in.ID)
	if err != nil {
		return id, 0, err
	}
	wanted, p := parseIfMatch(in.IfMatch)
	switch {
	case p != nil:
		return id, 0, p
	case wanted.any:
		return id, 0, nil
	case len(wanted.revisions) == 1:
		return id, wanted.revisions[0], nil
	}
	now, err := c.desk.Webhook(ctx, id)
	if err == nil && !slices.Contains(wanted.revisions, now.Revision) {
		err = s.stale(ctx, c, id, &admin.Error{Kind: admin.Stale, Message: "no tag of If-Match is the webhook's"})
	}
	return id, now.Revision, err
}

// stale tells who comes too late what the revision is now.
func (s *server) stale(ctx context.Context, c *call, id uuid.UUID, err error) error {
	var e *admin.Error
	if !errors.As(err, &e) || e.Kind != admin.Stale {
		return err
	}
	now, err := c.desk.Webhook(ctx, id)
	if err != nil {
		return err
	}
	p := newProblem(http.StatusPreconditionFailed, "the webhook has changed since: its revision is %d now, read it again", now.Revision)
	p.Revision = &now.Revision
	p.header("ETag", etag(now.Revision))
	return p
}

// parseID reads an id in a path. A text that is no id is the id of nothing.
func parseID(what, text string) (uuid.UUID, error) {
	const length = 36
	id, err := uuid.Parse(text)
	if err != nil || len(text) != length {
		return uuid.Nil, newProblem(http.StatusNotFound, "there is no %s %s", what, short(text))
	}
	return id, nil
}
