package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/walhook/walhook/relay/admin"
)

type testBody struct {
	EventType *string         `json:"event_type,omitempty" default:"webhook.test"`
	TestData  json.RawMessage `json:"test_data,omitempty" doc:"Any JSON; {\"test\": true} is the default"`
}

type rotateBody struct {
	NewSecret *string  `json:"new_secret,omitempty" required:"true" writeOnly:"true" minLength:"1" maxLength:"1024"`
	Overlap   *float64 `json:"overlap,omitempty" default:"86400" minimum:"0" doc:"Seconds for which the old secret signs as well"`
}

type replayBody struct {
	Since      *time.Time          `json:"since,omitempty" required:"true"`
	Until      Nullable[time.Time] `json:"until,omitempty" doc:"Now is the default"`
	OnlyFailed *bool               `json:"only_failed,omitempty" default:"false"`
}

type callAnswer struct{ Body admin.Call }

type replayAnswer struct {
	Body struct {
		ReplayID uuid.UUID `json:"replay_id" format:"uuid"`
	}
}

// actions registers what is done with a webhook.
func (s *server) actions() {
	for _, active := range []bool{true, false} {
		verb, summary := "activate", "Activate a webhook"
		if !active {
			verb, summary = "deactivate", "Deactivate a webhook"
		}
		register(s, operation{
			id: verb + "-webhook", method: "POST", path: "/webhooks/{id}/" + verb, tag: tagWebhooks, summary: summary,
			scope: admin.ScopeManage, response: exampleWebhook, errors: []int{http.StatusNotFound},
		}, func(ctx context.Context, c *call, in *WebhookInput) (*webhookAnswer, error) {
			id, err := parseID("webhook", in.ID)
			if err != nil {
				return nil, err
			}
			return answered(c.desk.SetActive(ctx, id, active))
		})
	}
	register(s, operation{
		id: "test-webhook", method: "POST", path: "/webhooks/{id}/test", tag: tagActions, summary: "Send a test event and wait for the answer",
		description: "The request is a real one, signed and logged, without retries. Whatever the receiver answers, the answer here is 200 and `succeeded` says how it went.",
		scope:       admin.ScopeManage, body: eventBody, schema: schemaOf[testBody](s), optional: true,
		request: `{"event_type": "patient.created", "test_data": {"id": 1}}`, response: exampleCall,
		errors: []int{http.StatusNotFound, http.StatusConflict},
	}, s.test)
	register(s, operation{
		id: "rotate-secret", method: "POST", path: "/webhooks/{id}/rotate-secret", tag: tagActions, summary: "Give a webhook a new secret",
		scope: admin.ScopeManage, body: jsonBody, schema: schemaOf[rotateBody](s), request: `{"new_secret": "correct horse battery staple", "overlap": 86400}`,
		response: exampleWebhook, errors: []int{http.StatusNotFound, http.StatusConflict},
	}, s.rotate)
	register(s, operation{
		id: "replay-webhook", method: "POST", path: "/webhooks/{id}/replay", tag: tagActions, summary: "Send past events again",
		description: "The webhook's event types and filters decide as they are now. Deliveries keep their ids.",
		scope:       admin.ScopeManage, status: http.StatusAccepted, body: jsonBody, schema: schemaOf[replayBody](s),
		request:  `{"since": "2026-01-31T00:00:00Z", "until": "2026-01-31T12:00:00Z", "only_failed": true}`,
		response: `{"replay_id": "019c0b0e-7a30-7e5d-8c5a-0f2f4c7e1a11"}`, errors: []int{http.StatusNotFound, http.StatusConflict},
	}, s.replay)
}

func (s *server) test(ctx context.Context, c *call, in *WebhookInput) (*callAnswer, error) {
	var b testBody
	if len(trim(c.body)) > 0 {
		if p := decodeEvent(c.body, &b); p != nil {
			return nil, p
		}
	}
	id, err := parseID("webhook", in.ID)
	if err != nil {
		return nil, err
	}
	w, err := c.desk.Webhook(ctx, id)
	if err != nil {
		return nil, err
	}
	const margin = 5 * time.Second // for the way through the queue
	wait := seconds(w.Timeout) + margin
	c.mayTakeLong(wait)
	test, err := c.desk.BeginTest(ctx, id, *orZero(b.EventType), b.TestData)
	if err != nil {
		return nil, oversized(err, b.TestData)
	}
	b.TestData = nil
	c.forgetBody() // receivers may take minutes, and others have bodies too
	answer, err := test.Await(ctx, wait)
	return &callAnswer{answer}, err
}

func (s *server) rotate(ctx context.Context, c *call, in *WebhookInput) (*webhookAnswer, error) {
	day := float64(24 * 60 * 60)
	b := rotateBody{Overlap: &day}
	if p := decodeSmall(c.body, &b); p != nil {
		return nil, p
	}
	const longest = 10 * 365 * 24 * 60 * 60
	switch {
	case b.NewSecret == nil:
		return nil, wrong(http.StatusUnprocessableEntity, "body.new_secret", "is missing: give the new one")
	case *b.NewSecret == "":
		return nil, wrong(http.StatusUnprocessableEntity, "body.new_secret", "is empty: PATCH the webhook with \"secret\": null to stop signing")
	case *b.Overlap < 0 || *b.Overlap > longest:
		return nil, wrong(http.StatusUnprocessableEntity, "body.overlap", "must be 0 to %d seconds", longest)
	}
	id, err := parseID("webhook", in.ID)
	if err != nil {
		return nil, err
	}
	w, err := c.desk.RotateSecret(ctx, id, *b.NewSecret, seconds(*b.Overlap))
	var refused *admin.Error
	if errors.As(err, &refused) && refused.Field == "secret" { // which has another name here
		renamed := *refused
		renamed.Field = "new_secret"
		err = &renamed
	}
	return answered(w, err)
}

func (s *server) replay(ctx context.Context, c *call, in *WebhookInput) (*replayAnswer, error) {
	var b replayBody
	if p := decodeSmall(c.body, &b); p != nil {
		return nil, p
	}
	if b.Since == nil {
		return nil, wrong(http.StatusUnprocessableEntity, "body.since", "is missing: say from when on, as in 2026-01-31T12:00:00Z")
	}
	id, err := parseID("webhook", in.ID)
	if err != nil {
		return nil, err
	}
	until := time.Now()
	if b.Until.Value != nil {
		until = *b.Until.Value
	}
	out := &replayAnswer{}
	out.Body.ReplayID, err = c.desk.Replay(ctx, id, *b.Since, until, b.OnlyFailed != nil && *b.OnlyFailed)
	return out, err
}

// seconds is a duration. What is too long for one was refused before.
func seconds(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }

// decodeSmall reads a body that may be strict about names that stand twice.
func decodeSmall(text []byte, into any) *problem {
	if p := checkText(text, maxDepth); p != nil {
		return p
	}
	if p := checkUnique(trim(text), "body"); p != nil {
		return p
	}
	return decode(text, into)
}

// decodeEvent reads a body with an event's data, which stays as it is.
func decodeEvent(text []byte, into any) *problem {
	if p := checkText(text, maxEventDepth); p != nil {
		return p
	}
	return decode(text, into)
}
