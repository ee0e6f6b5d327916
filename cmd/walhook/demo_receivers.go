package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/walhook/walhook/outbox"
	"github.com/walhook/walhook/outbox/receiver"
)

// The receiver that fails refuses some requests in a row, once in every demoCycle, and for demoDown at most:
// it is up again before the first retry, and a delivery is retried often enough for none to die.
const (
	demoCycle   = 60
	demoOutage  = 5
	demoDown    = 400 * time.Millisecond
	demoRetries = 8
)

// demoReceiver is one of the systems around the clinic: a subscription and the server behind it.
type demoReceiver struct {
	demoSubscription
	wants func(clinicEvent) bool // what eventTypes and filters say, said independently of the relay
	flaky bool

	verifier     *receiver.Verifier
	subscription uuid.UUID
	revision     int // of the subscription
	ledger       *demoLedger
	say          *narrator
	outages      outages
	server       *demoServer
}

// matches reports whether the receiver should get an event.
func (r *demoReceiver) matches(e clinicEvent) bool { return r.tenant == e.Tenant && r.wants(e) }

// demoReceivers lists them, with every kind of selection. A demo that measures has one tenant only.
func demoReceivers(o demoOptions) []*demoReceiver {
	all := []*demoReceiver{
		{demoSubscription: demoSubscription{name: "reception", description: "The screens at the entrance", filters: `{}`,
			eventTypes: []string{"patient.*", "appointment.*", "queue.called"}},
			wants: func(e clinicEvent) bool { return e.family("patient", "appointment") || e.Type == "queue.called" }},
		{demoSubscription: demoSubscription{name: "cardiology", description: "Everything of one department", filters: `{"department": "cardiology"}`,
			headers: `{"Authorization": "Bearer demo-of-cardiology", "X-Ward": "C2"}`},
			wants: func(e clinicEvent) bool { return e.department == "cardiology" }},
		{demoSubscription: demoSubscription{name: "accounting", description: "Payments of 1000 and more", filters: `{"amount_min": 1000}`,
			eventTypes: []string{"payment.*"}},
			wants: func(e clinicEvent) bool { return e.family("payment") && e.cents >= 1000_00 }},
		{demoSubscription: demoSubscription{name: "insurer", description: "Fails now and then, which retries make up for", filters: `{}`,
			eventTypes: []string{"visit.*", "payment.*"}}, flaky: true,
			wants: func(e clinicEvent) bool { return e.family("visit", "payment") }},
		{demoSubscription: demoSubscription{name: "data warehouse", filters: `{}`,
			description: "Everything, <b>whatever it is</b> <script>alert('a description')</script>"},
			wants: func(clinicEvent) bool { return true }},
	}
	if o.endless() {
		all = append(all, &demoReceiver{demoSubscription: demoSubscription{tenant: demoBranch, name: "branch office", filters: `{}`,
			description: "Everything of another tenant, whose events nobody else gets"},
			wants: func(clinicEvent) bool { return true }})
	}
	for _, r := range all {
		r.secret, r.maxRetries = "demo-secret-of-"+strings.ReplaceAll(r.name, " ", "-"), demoRetries
	}
	return all
}

// demoBranch is the tenant of the clinic's branch.
const demoBranch = "north"

// startDemoReceivers starts a server for each. After an error those that run are returned as well.
func startDemoReceivers(ctx context.Context, o demoOptions, ledger *demoLedger, say *narrator) ([]*demoReceiver, error) {
	all := demoReceivers(o)
	for i, r := range all {
		r.ledger, r.say = ledger, say
		var err error
		if r.verifier, err = receiver.NewVerifier(receiver.Options{Scheme: receiver.SHA256, Secrets: []string{r.secret}}); err == nil {
			r.server, err = startDemoServer(ctx, r)
		}
		if err != nil {
			return all[:i], fmt.Errorf("start receiver %s: %w", r.name, err)
		}
		r.url = r.server.base + "/webhooks"
	}
	return all, nil
}

// ServeHTTP does what any receiver should: verify the signature over the bytes that came, answer quickly,
// and tell repetitions by X-Webhook-ID, which the ledger does here.
func (r *demoReceiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, outbox.MaxPayload+64<<10))
	if err != nil {
		panic(http.ErrAbortHandler) // the sender broke off
	}
	now := time.Now()
	envelope, err := readEnvelope(req, body)
	if err != nil || r.verifier.Verify(req.Header, body) != nil {
		r.ledger.forgery()
		r.say.line("%s refuses a request with a wrong signature or body", r.name)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	taken := !r.flaky || !r.outages.down(now)
	r.ledger.arrived(envelope.WebhookID, now.Sub(envelope.Timestamp), taken)
	if !taken {
		r.say.notable("fails", "%s is down: 500 for %s, attempt %d", r.name, envelope.EventType, envelope.Attempt)
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	if r.flaky && envelope.Attempt > 1 { // others get the same again only when it is replayed
		r.say.notable("recovers", "%s got %s at attempt %d, %.1f s after the commit", r.name, envelope.EventType, envelope.Attempt,
			now.Sub(envelope.Timestamp).Seconds())
	}
}

// outages decides when the failing receiver fails.
type outages struct {
	mu       sync.Mutex
	requests int
	began    time.Time
}

// down counts a request and reports whether it meets an outage. The first one comes early, so that a short
// demo has it.
func (o *outages) down(now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.requests++
	switch n := o.requests % demoCycle; {
	case n == 2:
		o.began = now
		return true
	case n > 2 && n < 2+demoOutage:
		return now.Sub(o.began) < demoDown
	}
	return false
}

// demoEnvelope is a delivery's body in the format envelope.
type demoEnvelope struct {
	EventType string          `json:"event_type"`
	EventData json.RawMessage `json:"event_data"`
	WebhookID uuid.UUID       `json:"webhook_id"`
	Timestamp time.Time       `json:"timestamp"` // of the commit
	Attempt   int             `json:"attempt"`
}

// readEnvelope reads the body and holds it to the headers.
func readEnvelope(req *http.Request, body []byte) (e demoEnvelope, err error) {
	if err := json.Unmarshal(body, &e); err != nil {
		return e, fmt.Errorf("read envelope: %w", err)
	}
	h := req.Header
	if h.Get("X-Webhook-Event") != e.EventType || h.Get("X-Webhook-ID") != e.WebhookID.String() || h.Get("X-Webhook-Attempt") != strconv.Itoa(e.Attempt) {
		return e, fmt.Errorf("the envelope of %s does not agree with the headers", e.WebhookID)
	}
	return e, nil
}
