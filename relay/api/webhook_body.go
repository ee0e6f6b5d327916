package api

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/walhook/walhook/relay/admin"
)

// webhookBody is what a webhook is made of. Its tags are the description and the defaults; a test holds the defaults to the
// database's.
type webhookBody struct {
	Name           *string             `json:"name,omitempty" required:"true" minLength:"1" maxLength:"255" doc:"What people call it"`
	URL            *string             `json:"url,omitempty" required:"true" format:"uri" maxLength:"2048" doc:"Where events are sent, http or https"`
	Description    *string             `json:"description,omitempty" default:""`
	Events         *Strings            `json:"events,omitempty" nullable:"false" doc:"Exact names or prefixes as patient.*; empty (the default): all"`
	Filters        *json.RawMessage    `json:"filters,omitempty" doc:"An object of conditions that event_data must fulfil, all of them; {} is the default"`
	Headers        *StringMap          `json:"headers,omitempty" doc:"Extra request headers. A value [redacted] leaves the stored one alone"`
	Secret         Nullable[string]    `json:"secret,omitempty" writeOnly:"true" maxLength:"1024" doc:"Signs requests; never returned. Left out of a PUT or PATCH it stays, null removes it"`
	Signature      *string             `json:"signature,omitempty" default:"sha256" enum:"sha256,standard,standard-ed25519,github,stripe,shopify,slack,none"`
	PayloadFormat  *string             `json:"payload_format,omitempty" default:"envelope" enum:"envelope,standard,cloudevents,cloudevents-binary,raw"`
	PayloadVersion *int                `json:"payload_version,omitempty" default:"1" minimum:"1" maximum:"2"`
	MaxRetries     *int                `json:"max_retries,omitempty" default:"3" minimum:"0" maximum:"10" doc:"Retries after the first attempt"`
	RetryDelay     *float64            `json:"retry_delay,omitempty" default:"60" minimum:"0" maximum:"86400" doc:"Seconds before the first retry; doubles"`
	Timeout        *float64            `json:"timeout,omitempty" default:"30" exclusiveMinimum:"0" maximum:"300" doc:"Seconds for a whole attempt"`
	Ordering       *string             `json:"ordering,omitempty" default:"none" enum:"none,key,strict"`
	MaxInFlight    *int                `json:"max_in_flight,omitempty" default:"16" minimum:"1" maximum:"1000"`
	RateLimit      Nullable[int]       `json:"rate_limit,omitempty" minimum:"1" doc:"Requests a second; null (the default): no limit"`
	BatchSize      *int                `json:"batch_size,omitempty" default:"1" minimum:"1" maximum:"1000" doc:"More than 1: a JSON array a request"`
	BatchWait      *float64            `json:"batch_wait,omitempty" default:"0" minimum:"0" maximum:"300" doc:"Seconds that a batch may wait to fill"`
	Verification   *string             `json:"verification,omitempty" default:"none" enum:"none,cloudevents,slack" doc:"The handshake that the receiver must answer first"`
	Active         *bool               `json:"is_active,omitempty" default:"true"`
	Tenant         *string             `json:"tenant,omitempty" doc:"Whose events it gets; cannot be changed. The default is the token's tenant, or the empty one"`
	BackfillFrom   Nullable[time.Time] `json:"backfill_from,omitempty" doc:"Only when it is made: send matching events since then, too"`
}

// readOnly are the members of an answer that no body sets. A PUT takes them, so that an answer can be sent back.
var readOnly = []string{
	"id", "has_secret", "status", "status_reason", "created_at", "updated_at", "revision", "verified_at", "previous_secret_expires_at",
}

// decodeWebhook reads a body that describes a webhook.
func decodeWebhook(text []byte, ignored ...string) (*webhookBody, *problem) {
	if p := checkText(text, maxDepth); p != nil {
		return nil, p
	}
	if p := checkUnique(trim(text), "body"); p != nil {
		return nil, p
	}
	b := &webhookBody{}
	if p := decode(text, b, ignored...); p != nil {
		return nil, p
	}
	switch {
	case b.Secret.Value != nil && *b.Secret.Value == "":
		return nil, wrong(http.StatusUnprocessableEntity, "body.secret", "is empty: give one, or null for none")
	case b.RateLimit.Value != nil && *b.RateLimit.Value < 1:
		return nil, wrong(http.StatusUnprocessableEntity, "body.rate_limit", "%d is less than 1: null means no limit", *b.RateLimit.Value)
	case b.Filters != nil && (*b.Filters)[0] != '{':
		return nil, wrong(http.StatusUnprocessableEntity, "body.filters", "must be an object of conditions")
	}
	return b, nil
}

// change is what the body sets, and nothing else.
func (b *webhookBody) change() admin.Change {
	c := admin.Change{
		Tenant: b.Tenant, Name: b.Name, Description: b.Description, URL: b.URL, Events: (*[]string)(b.Events),
		Headers: (*map[string]string)(b.Headers), Signature: b.Signature, PayloadFormat: b.PayloadFormat,
		PayloadVersion: b.PayloadVersion, MaxRetries: b.MaxRetries, RetryDelay: b.RetryDelay, Timeout: b.Timeout,
		Ordering: b.Ordering, MaxInFlight: b.MaxInFlight, BatchSize: b.BatchSize, BatchWait: b.BatchWait,
		Verification: b.Verification, Active: b.Active, BackfillFrom: b.BackfillFrom.Value,
	}
	if b.Filters != nil {
		c.Filters = *b.Filters
	}
	if b.Secret.Given {
		c.Secret = orZero(b.Secret.Value)
	}
	if b.RateLimit.Given {
		c.RateLimit = orZero(b.RateLimit.Value)
	}
	return c
}

// whole gives what is left out of a PUT its default, except for the secret.
func (b *webhookBody) whole() {
	setDefault(&b.Description, "")
	setDefault(&b.Events, Strings{})
	setDefault(&b.Filters, json.RawMessage("{}"))
	setDefault(&b.Headers, StringMap{})
	setDefault(&b.Signature, "sha256")
	setDefault(&b.PayloadFormat, "envelope")
	setDefault(&b.PayloadVersion, 1)
	setDefault(&b.MaxRetries, 3)
	setDefault(&b.RetryDelay, 60)
	setDefault(&b.Timeout, 30)
	setDefault(&b.Ordering, "none")
	setDefault(&b.MaxInFlight, 16)
	b.RateLimit.Given = true
	setDefault(&b.BatchSize, 1)
	setDefault(&b.BatchWait, 0)
	setDefault(&b.Verification, "none")
	setDefault(&b.Active, true)
}

// required refuses a body without what every webhook has.
func (b *webhookBody) required() *problem {
	switch {
	case b.Name == nil:
		return wrong(http.StatusUnprocessableEntity, "body.name", "is missing: say what people call the webhook")
	case b.URL == nil:
		return wrong(http.StatusUnprocessableEntity, "body.url", "is missing: say where events are to be sent")
	}
	return nil
}

func setDefault[T any](field **T, value T) {
	if *field == nil {
		*field = &value
	}
}

func orZero[T any](value *T) *T {
	if value == nil {
		value = new(T)
	}
	return value
}
