package delivery

import (
	"time"

	"github.com/google/uuid"
)

// Secret is a string that no formatter, logger or encoder prints.
type Secret string

// String hides the secret; so do GoString and MarshalText.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "[redacted]"
}

// GoString hides the secret from %#v.
func (s Secret) GoString() string { return s.String() }

// MarshalText hides the secret from encoders.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }

// Rule is what of a subscription decides which events it gets. It applies as of the event's commit
// position.
type Rule struct {
	SubscriptionID uuid.UUID
	Revision       int64 // grows with every change of the subscription
	Tenant         string
	EventTypes     []string // exact names or prefixes with ".*"; empty means all
	Filters        []byte   // JSON object text
	Ordering       Ordering
	Active         bool
}

// Header is one extra request header.
type Header struct{ Name, Value string }

// Settings is what of a subscription decides how a delivery is sent. It applies as of the moment of
// sending.
type Settings struct {
	SubscriptionID uuid.UUID
	Revision       int64
	Tenant         string
	Name           string
	URL            string
	Headers        []Header
	Secret         Secret
	// PreviousSecret still signs until PreviousSecretExpiresAt (the zero time: for ever).
	PreviousSecret          Secret
	PreviousSecretExpiresAt time.Time
	Signature               string
	PayloadFormat           string
	PayloadVersion          int           // of the envelope
	MaxRetries              int           // retries after the first attempt
	RetryDelay              time.Duration // before the first retry; doubles
	Timeout                 time.Duration // of a whole attempt
	Ordering                Ordering
	MaxInFlight             int           // requests at a time
	RateLimit               int           // requests a second; 0 means none
	AllowedPerMinute        int           // requests that the receiver allowed in the handshake; 0 means any number
	BatchSize               int           // deliveries a request; 1 and less mean no batches
	BatchWait               time.Duration // for a batch to fill
	Verification            Verification
	Unverified              bool // Verification asks for a handshake that has not succeeded yet
	Active                  bool
	Invalid                 string // why the relay cannot use the subscription; empty when it can
}

// Usable reports whether anything may be sent with these settings now.
func (s *Settings) Usable() bool { return s.Active && s.Invalid == "" && !s.Unverified }

// Batches reports whether requests carry several deliveries.
func (s *Settings) Batches() bool { return s.BatchSize > 1 }

// Ordering is what a subscription promises about the order of its deliveries.
type Ordering string

// The orderings.
const (
	OrderNone   Ordering = "none"
	OrderKey    Ordering = "key"    // events with the same key arrive in commit order, each after the one before it is done
	OrderStrict Ordering = "strict" // all of the subscription do
)

// Sequence names what the delivery of an event with that order promised must keep its place in: deliveries of a
// subscription with the same one go out one after the other. It is empty for those that may overtake each other.
func (o Ordering) Sequence(e *Event) string {
	switch {
	case o == OrderStrict:
		return "strict"
	case o == OrderKey && e.Key != "":
		return "key " + e.Key
	}
	return ""
}

// Verification is a handshake that a receiver must pass before anything is sent to it.
type Verification string

// The verifications.
const (
	VerifyNone        Verification = "none"
	VerifyCloudEvents Verification = "cloudevents" // OPTIONS with WebHook-Request-Origin (CloudEvents HTTP 1.1 Web Hooks, section 4)
	VerifySlack       Verification = "slack"       // a url_verification challenge
)
