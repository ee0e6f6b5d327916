package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
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
	name       string
	eventTypes []string
	filters    string                 // as in outbox.subscriptions
	wants      func(clinicEvent) bool // what eventTypes and filters say, said independently of the relay
	flaky      bool

	secret       string
	verifier     *receiver.Verifier
	subscription uuid.UUID
	url          string
	ledger       *demoLedger
	say          *narrator
	outages      outages
	server       *http.Server
	served       chan struct{} // closed when the server has ended
}

// demoReceivers lists them, with every kind of selection.
func demoReceivers() []*demoReceiver {
	return []*demoReceiver{
		{name: "reception", eventTypes: []string{"patient.*", "appointment.*", "queue.called"}, filters: `{}`,
			wants: func(e clinicEvent) bool { return e.family("patient", "appointment") || e.Type == "queue.called" }},
		{name: "cardiology", eventTypes: []string{}, filters: `{"department": "cardiology"}`,
			wants: func(e clinicEvent) bool { return e.department == "cardiology" }},
		{name: "accounting", eventTypes: []string{"payment.*"}, filters: `{"amount_min": 1000}`,
			wants: func(e clinicEvent) bool { return e.family("payment") && e.cents >= 1000_00 }},
		{name: "insurer", eventTypes: []string{"visit.*", "payment.*"}, filters: `{}`, flaky: true,
			wants: func(e clinicEvent) bool { return e.family("visit", "payment") }},
		{name: "data warehouse", eventTypes: []string{}, filters: `{}`,
			wants: func(clinicEvent) bool { return true }},
	}
}

// startDemoReceivers starts a server for each. After an error those that run are returned as well.
func startDemoReceivers(ctx context.Context, ledger *demoLedger, say *narrator) ([]*demoReceiver, error) {
	all := demoReceivers()
	for i, r := range all {
		r.ledger, r.say = ledger, say
		r.secret = "demo-secret-of-" + strings.ReplaceAll(r.name, " ", "-")
		var err error
		if r.verifier, err = receiver.NewVerifier(receiver.Options{Scheme: receiver.SHA256, Secrets: []string{r.secret}}); err == nil {
			err = r.start(ctx)
		}
		if err != nil {
			return all[:i], fmt.Errorf("start receiver %s: %w", r.name, err)
		}
	}
	return all, nil
}

func (r *demoReceiver) start(ctx context.Context) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	r.url = "http://" + l.Addr().String() + "/webhooks"
	r.server = &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute}
	r.served = make(chan struct{})
	go func() {
		defer close(r.served)
		_ = r.server.Serve(l) // ends when the server is closed
	}()
	return nil
}

func (r *demoReceiver) stop() {
	_ = r.server.Close()
	<-r.served
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
	if envelope.Attempt > 1 {
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
