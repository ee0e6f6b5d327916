package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"time"
)

// Client speaks walhook's REST API.
type Client struct {
	URL   string // of the relay, without /api/v1
	Token string
	HTTP  http.Client
}

// Problem is an error as the API tells it (RFC 9457).
type Problem struct {
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Errors []struct {
		Location string `json:"location"` // as body.max_retries
		Message  string `json:"message"`
	} `json:"errors"`
}

func (p *Problem) Error() string { return fmt.Sprintf("%d: %s", p.Status, p.Detail) }

// do sends in as JSON, unless it is nil, and reads the answer into out, unless that is nil. It returns the ETag. A condition
// is the ETag that the webhook must still have.
func (c *Client) do(ctx context.Context, method, path, condition string, in, out any) (etag string, err error) {
	body, err := json.Marshal(in)
	if err != nil {
		return "", err
	}
	request, err := http.NewRequestWithContext(ctx, method, c.URL+"/api/v1"+path, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	request.Header.Set("Authorization", "Bearer "+c.Token)
	request.Header.Set("Content-Type", "application/json")
	if condition != "" {
		request.Header.Set("If-Match", condition)
	}
	response, err := c.HTTP.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	decoder := json.NewDecoder(response.Body)
	if response.StatusCode >= 300 {
		problem := &Problem{Status: response.StatusCode, Detail: response.Status} // when it came from something in between
		_ = decoder.Decode(problem)
		return "", problem
	}
	if out != nil {
		err = decoder.Decode(out)
	}
	return response.Header.Get("ETag"), err
}

// Webhook has the members that this program cares about. The zero value of one that is omitted lets the API choose.
type Webhook struct {
	ID         string            `json:"id,omitempty"`
	Name       string            `json:"name"`
	URL        string            `json:"url"`
	Events     []string          `json:"events,omitempty"`
	Filters    map[string]any    `json:"filters,omitempty"`
	Headers    map[string]string `json:"headers,omitempty"`
	Secret     string            `json:"secret,omitempty"` // sent, and never returned
	MaxRetries *int              `json:"max_retries,omitempty"`
	RetryDelay float64           `json:"retry_delay,omitempty"` // seconds
	Timeout    float64           `json:"timeout,omitempty"`     // seconds
	Revision   int               `json:"revision,omitempty"`
}

// Create makes a webhook and returns it as it is.
func (c *Client) Create(ctx context.Context, w Webhook) (made Webhook, err error) {
	_, err = c.do(ctx, http.MethodPost, "/webhooks/", "", w, &made)
	return made, err
}

// Update changes a webhook on the strength of what it is now. When somebody else is faster, change is asked again with what
// they left: it returns the members to set.
func (c *Client) Update(ctx context.Context, id string, change func(now Webhook) map[string]any) (changed Webhook, err error) {
	for {
		var now Webhook
		etag, err := c.do(ctx, http.MethodGet, "/webhooks/"+id, "", nil, &now)
		if err != nil {
			return now, err
		}
		_, err = c.do(ctx, http.MethodPatch, "/webhooks/"+id, etag, change(now), &changed)
		var problem *Problem
		if !errors.As(err, &problem) || problem.Status != http.StatusPreconditionFailed {
			return changed, err
		}
	}
}

// Webhooks goes through all webhooks, page by page; status is active, inactive or empty.
func (c *Client) Webhooks(ctx context.Context, status string) iter.Seq2[Webhook, error] {
	return func(yield func(Webhook, error) bool) {
		query := url.Values{"limit": {"2"}} // small, to show the loop: up to 500
		if status != "" {
			query.Set("status", status)
		}
		for {
			var page struct {
				Items []Webhook `json:"items"`
				Next  string    `json:"next_cursor"`
			}
			if _, err := c.do(ctx, http.MethodGet, "/webhooks/?"+query.Encode(), "", nil, &page); err != nil {
				yield(Webhook{}, err)
				return
			}
			for _, w := range page.Items {
				if !yield(w, nil) {
					return
				}
			}
			if page.Next == "" {
				return
			}
			query.Set("cursor", page.Next)
		}
	}
}

// Call is one attempt, as far as this program cares.
type Call struct {
	Status     *int    `json:"status"` // nil: there was no answer
	Error      *string `json:"error"`
	Succeeded  bool    `json:"succeeded"`
	DurationMS float64 `json:"duration_ms"`
}

// Test sends a test event to a webhook and returns what came back.
func (c *Client) Test(ctx context.Context, id, eventType string, data any) (call Call, err error) {
	_, err = c.do(ctx, http.MethodPost, "/webhooks/"+id+"/test", "", map[string]any{"event_type": eventType, "test_data": data}, &call)
	return call, err
}

// Trigger publishes an event and returns its id. Numbers that float64 cannot hold are written as json.Number.
func (c *Client) Trigger(ctx context.Context, eventType, key string, data any) (eventID string, err error) {
	var published struct {
		EventID string `json:"event_id"`
	}
	_, err = c.do(ctx, http.MethodPost, "/webhooks/events/trigger", "", map[string]any{"event_type": eventType, "key": key, "event_data": data}, &published)
	return published.EventID, err
}

// Delete removes a webhook.
func (c *Client) Delete(ctx context.Context, id string) error {
	_, err := c.do(ctx, http.MethodDelete, "/webhooks/"+id, "", nil, nil)
	return err
}

// NewClient makes a client. Requests may take as long as a webhook's timeout, for which Test waits.
func NewClient(relay, token string) *Client {
	return &Client{URL: relay, Token: token, HTTP: http.Client{Timeout: 6 * time.Minute}}
}
