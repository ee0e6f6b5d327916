package admin

import (
	"encoding/json"
	"time"

	"github.com/google/uuid"
)

// Webhook is a row of outbox.subscriptions, without its secret. Values of headers that look like a credential are
// replaced by Redacted.
type Webhook struct {
	ID              uuid.UUID         `json:"id"`
	Tenant          string            `json:"tenant"`
	Name            string            `json:"name"`
	Description     string            `json:"description"`
	URL             string            `json:"url"`
	Events          []string          `json:"events" doc:"Exact names or prefixes as patient.*; empty: all"`
	Filters         json.RawMessage   `json:"filters"`
	Headers         map[string]string `json:"headers"`
	HasSecret       bool              `json:"has_secret"`
	Signature       string            `json:"signature"`
	PayloadFormat   string            `json:"payload_format"`
	PayloadVersion  int               `json:"payload_version"`
	MaxRetries      int               `json:"max_retries"`
	RetryDelay      float64           `json:"retry_delay" doc:"Seconds before the first retry; doubles"`
	Timeout         float64           `json:"timeout" doc:"Seconds for a whole attempt"`
	Ordering        string            `json:"ordering"`
	MaxInFlight     int               `json:"max_in_flight"`
	RateLimit       *int              `json:"rate_limit" doc:"Requests a second; null: no limit"`
	BatchSize       int               `json:"batch_size"`
	BatchWait       float64           `json:"batch_wait" doc:"Seconds that a batch may wait to fill"`
	Verification    string            `json:"verification"`
	Active          bool              `json:"is_active"`
	Status          string            `json:"status" doc:"valid, or invalid when the relay cannot use it: status_reason says why"`
	StatusReason    string            `json:"status_reason,omitempty"`
	PreviousExpires *time.Time        `json:"previous_secret_expires_at,omitempty"`
	VerifiedAt      *time.Time        `json:"verified_at,omitempty"`
	CreatedAt       time.Time         `json:"created_at"`
	UpdatedAt       time.Time         `json:"updated_at"`
	Revision        int               `json:"revision" doc:"Grows with every change; its ETag is the revision in quotes"`
}

// Redacted stands for the value of a header that is not shown. Written back, it leaves the stored value alone.
const Redacted = "[redacted]"

// Change is what is to be set of a webhook; nil fields stay as they are, or get their defaults in a new one.
type Change struct {
	Tenant         *string // of a new one only
	Name           *string
	Description    *string
	URL            *string
	Events         *[]string
	Filters        json.RawMessage // nil: stays
	Headers        *map[string]string
	Secret         *string // "" removes it
	Signature      *string
	PayloadFormat  *string
	PayloadVersion *int
	MaxRetries     *int
	RetryDelay     *float64 // seconds
	Timeout        *float64 // seconds
	Ordering       *string
	MaxInFlight    *int
	RateLimit      *int // 0: no limit
	BatchSize      *int
	BatchWait      *float64 // seconds
	Verification   *string
	Active         *bool
	BackfillFrom   *time.Time // of a new one only
}

// Numbers are the attempts of a webhook, or of all, within some time, and how they ended.
type Numbers struct {
	Total       int64    `json:"total" doc:"Attempts"`
	Success     int64    `json:"success"`
	Failed      int64    `json:"failed"`
	SuccessRate *float64 `json:"success_rate" doc:"From 0 to 1; null without attempts"`
	MeanMS      *float64 `json:"mean_ms" doc:"Mean response time in milliseconds"`
	P95MS       *float64 `json:"p95_ms" doc:"Upper bound of the response time of 95 of 100 attempts, in milliseconds: a power of 2"`
}

// Stats are rolled up as attempts are recorded; none is counted here. The windows are as exact as samples are frequent,
// which is five minutes.
type Stats struct {
	WebhookID           *uuid.UUID `json:"webhook_id,omitempty"`
	Numbers                        // since the webhook was made
	Pending             int64      `json:"pending" doc:"Deliveries in the queue"`
	Dead                int64      `json:"dead" doc:"Dead letters"`
	LastAttemptAt       *time.Time `json:"last_attempt_at"`
	ConsecutiveFailures int64      `json:"consecutive_failures"`
	LastHour            Numbers    `json:"last_hour"`
	LastDay             Numbers    `json:"last_day"`
	LastWeek            Numbers    `json:"last_week"`
	Webhooks            *int64     `json:"webhooks,omitempty"` // of the system: how many there are
	ActiveWebhooks      *int64     `json:"active_webhooks,omitempty"`
}

// Health is how a webhook does, at a glance.
type Health struct {
	Webhook
	Hour                Numbers // the last hour
	Pending, Dead       int64
	ConsecutiveFailures int64
	LastAttemptAt       *time.Time
	Alerts              []string // messages of alerts that stand
}

// Call is one attempt, with the request as it was sent and what came back.
type Call struct {
	DeliveryID       uuid.UUID         `json:"delivery_id"`
	EventID          uuid.UUID         `json:"event_id"`
	WebhookID        uuid.UUID         `json:"webhook_id"`
	Attempt          int               `json:"attempt"`
	URL              string            `json:"url"`
	Method           string            `json:"method"`
	RequestHeaders   map[string]string `json:"request_headers" doc:"Secrets are redacted; signatures are not kept"`
	Payload          string            `json:"payload" doc:"The body, put together again from the event: the same JSON, but not byte for byte what was signed; empty when the event is no longer kept"`
	PayloadTruncated bool              `json:"payload_truncated,omitempty" doc:"The payload is longer, and only its beginning is here"`
	Status           *int              `json:"status" doc:"HTTP status; null: no answer"`
	ResponseBody     *string           `json:"response_body" doc:"10 KB at most"`
	DurationMS       float64           `json:"duration_ms"`
	Error            *string           `json:"error"`
	AttemptedAt      time.Time         `json:"attempted_at"`
	Succeeded        bool              `json:"succeeded"`
}

// CallFilter chooses calls of a webhook.
type CallFilter struct {
	Outcome      string // "", "success" or "failed"
	Status       int    // HTTP status; 0: any
	Since, Until time.Time
	Limit        int
	Cursor       string
}

// Delivery is one event for one webhook, and what became of it.
type Delivery struct {
	ID            uuid.UUID
	EventID       uuid.UUID
	WebhookID     uuid.UUID
	Webhook       string // its name; empty: deleted
	Type          string // of the event; empty: no longer kept
	State         string // delivered, failed (neither waiting nor dead any more), dead, or as in outbox.queue: waiting, in flight, held, inactive
	NextAttemptAt *time.Time
	LastError     string
	Calls         []Call // the newest first, 100 at most
}

// DeadLetter is a delivery that was given up.
type DeadLetter struct {
	ID            uuid.UUID
	WebhookID     uuid.UUID
	Webhook       string // its name; empty: deleted, so that it cannot be redelivered
	EventID       uuid.UUID
	Type          string
	Key           string
	Tenant        string
	Attempts      int
	LastAttemptAt *time.Time
	LastStatus    *int
	LastError     string
	DiedAt        time.Time
}

// DeadFilter chooses dead letters.
type DeadFilter struct {
	Webhook *uuid.UUID
	Type    string
	Limit   int
	Cursor  string
}

// Event is one that was published.
type Event struct {
	ID            uuid.UUID
	Type          string
	Payload       string // JSON text; cut to 64 KB where many are listed
	Key           *string
	Tenant        string
	Source        *string
	CorrelationID *string
	Headers       string // JSON text
	CreatedAt     time.Time
	Emitted       bool // it came as a logical message
}

// EventFilter chooses events. Empty fields choose nothing.
type EventFilter struct {
	Type          string // exact, or a prefix as patient.*
	Key           string
	CorrelationID string
	Limit         int
	Cursor        string
}

// EventType is a row of outbox.event_types.
type EventType struct {
	Name        string          `json:"name"`
	Number      *int            `json:"number" doc:"For those who know types by number; unique"`
	Description string          `json:"description"`
	Schema      json.RawMessage `json:"schema" doc:"JSON Schema of the payload; null: any"`
	Validation  string          `json:"validation" doc:"What the API does with events that the schema does not fit: warn or reject"`
}

// Published is what became of a published event.
type Published struct {
	EventID  uuid.UUID `json:"event_id"`
	Type     string    `json:"event_type"`
	Warnings []string  `json:"warnings,omitempty" doc:"What the schema of the type finds wrong with event_data"`
}

// Replication is a row of outbox.replication_lag.
type Replication struct {
	SlotName             string  `json:"slot_name"`
	Active               bool    `json:"active"`
	WALStatus            string  `json:"wal_status"`
	LagBytes             *int64  `json:"lag_bytes" doc:"Current WAL position minus confirmed position"`
	RetainedBytes        *int64  `json:"retained_bytes" doc:"Current WAL position minus restart position"`
	LagSeconds           float64 `json:"lag_seconds" doc:"Age of the oldest committed event not yet recorded"`
	CheckpointLSN        string  `json:"checkpoint_lsn"`
	ConfirmedLSN         *string `json:"confirmed_lsn"`
	QueueDepth           int64   `json:"queue_depth"`
	OldestPendingSeconds float64 `json:"oldest_pending_seconds"`
	SafeBytes            *int64  `json:"safe_bytes" doc:"WAL until the slot may be lost; null: no limit is set"`
	DeadLetters          int64   `json:"dead_letters"`
}

// Pulse is the system at a moment. Counts grow; what is charted is how fast. A principal of one tenant gets the numbers of
// that tenant, and no lag.
type Pulse struct {
	At          time.Time `json:"at"`
	Events      *int64    `json:"events"` // nil: unknown for one tenant
	Attempts    int64     `json:"attempts"`
	Succeeded   int64     `json:"succeeded"`
	Failed      int64     `json:"failed"`
	QueueDepth  int64     `json:"queue_depth"`
	DeadLetters int64     `json:"dead_letters"`
	LagBytes    *int64    `json:"lag_bytes"`
	LagSeconds  *float64  `json:"lag_seconds"`
}

// Alert is one that stands.
type Alert struct {
	Alert     string
	WebhookID *uuid.UUID // nil: the slot's
	Webhook   string
	Message   string
	RaisedAt  time.Time
}

// Token is a row of outbox.api_tokens, without what it is recognised by.
type Token struct {
	ID         uuid.UUID  `json:"id"`
	Name       string     `json:"name"`
	Hint       string     `json:"hint" doc:"How it begins"`
	Scopes     []Scope    `json:"scopes"`
	Tenant     *string    `json:"tenant"`
	CreatedAt  time.Time  `json:"created_at"`
	ExpiresAt  *time.Time `json:"expires_at"`
	LastUsedAt *time.Time `json:"last_used_at"`
	RevokedAt  *time.Time `json:"revoked_at"`
}

// NewToken is what a token is made of.
type NewToken struct {
	Name      string
	Scopes    []Scope
	Tenant    *string       // nil: all tenants
	ExpiresIn time.Duration // 0: never
}
