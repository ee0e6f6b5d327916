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
	Active         bool
}

// Header is one extra request header.
type Header struct{ Name, Value string }

// Settings is what of a subscription decides how a delivery is sent. It applies as of the moment of
// sending.
type Settings struct {
	SubscriptionID uuid.UUID
	Revision       int64
	Name           string
	URL            string
	Headers        []Header
	Secret         Secret
	// PreviousSecret still signs until PreviousSecretExpiresAt (the zero time: for ever).
	PreviousSecret          Secret
	PreviousSecretExpiresAt time.Time
	Signature               string
	PayloadFormat           string
	MaxRetries              int           // retries after the first attempt
	RetryDelay              time.Duration // before the first retry; doubles
	Timeout                 time.Duration // of a whole attempt
	MaxInFlight             int
	RateLimit               int // requests a second; 0 means none
	Active                  bool
	Invalid                 string // why the relay cannot use the subscription; empty when it can
}

// Usable reports whether anything may be sent with these settings now.
func (s *Settings) Usable() bool { return s.Active && s.Invalid == "" }
