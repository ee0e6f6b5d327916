package receiver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"
)

// DefaultMaxBody is the largest body that is read unless an Endpoint says otherwise, in bytes: walhook's largest
// payload, 10 MB, with its envelope. A subscription with batches may need more.
const DefaultMaxBody = 10<<20 + 64<<10

// markTimeout bounds telling the store how a request ended, which is done even when its sender has gone.
const markTimeout = 10 * time.Second

// Endpoint is where webhooks come in. Its fields are not changed while it is in use.
type Endpoint struct {
	// Verifier is required. To accept unsigned requests, make one with the scheme None.
	Verifier *Verifier

	// MaxBody bounds a request's body, in bytes: DefaultMaxBody when zero. A larger one is answered 413.
	MaxBody int64

	// Seen recognises what has come before by its IDOf; nothing is recognised when nil, and nor is a request
	// without an id. A Manager with a store of its own needs none here.
	Seen Seen

	// CloudEventsOrigins are the senders that may deliver CloudEvents here, or "*" for all: they ask for it with
	// OPTIONS before the first event (HTTP 1.1 Web Hooks for Event Delivery, section 4). None: not answered.
	CloudEventsOrigins []string

	// SlackChallenge answers Slack's url_verification.
	SlackChallenge bool

	// Failed is told when the store does not work; may be nil.
	Failed func(*http.Request, error)
}

// Middleware lets through to next what is verified and new. next reads the body as it was received, and
// everybody behind it gets the same bytes from Body. What it answers decides: after 200 to 299 a delivery counts
// as handled, after anything else, or a panic, it is forgotten and may come again.
//
// Others are answered here: 401 without a valid signature, 413 for a body that is too large, 200 when the
// delivery was handled before, 409 while it is being handled, 503 when the store does not work.
//
// It panics without a Verifier.
func (e Endpoint) Middleware(next http.Handler) http.Handler {
	if e.Verifier == nil {
		panic("receiver: the Endpoint has no Verifier: make one, with the scheme None to accept everything")
	}
	if e.MaxBody == 0 {
		e.MaxBody = DefaultMaxBody
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if e.handshake(w, r) {
			return
		}
		if body, ok := e.verified(w, r); ok && !e.challenged(w, body) {
			r.Body = newRawBody(body)
			e.once(w, r, next)
		}
	})
}

// handshake answers a CloudEvents sender that asks for permission.
func (e Endpoint) handshake(w http.ResponseWriter, r *http.Request) bool {
	if len(e.CloudEventsOrigins) == 0 || r.Method != http.MethodOptions {
		return false
	}
	grant, granted := CloudEventsGrant(r.Header, e.CloudEventsOrigins...)
	if !granted {
		http.Error(w, "this origin may not deliver here", http.StatusForbidden)
		return true
	}
	for name, values := range grant {
		w.Header()[name] = values
	}
	return true
}

// verified reads and verifies the body, or answers why not.
func (e Endpoint) verified(w http.ResponseWriter, r *http.Request) ([]byte, bool) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, e.MaxBody))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		http.Error(w, fmt.Sprintf("the body has more than %d bytes", large.Limit), http.StatusRequestEntityTooLarge)
		return nil, false
	case err != nil:
		http.Error(w, "the body ended too early", http.StatusBadRequest)
		return nil, false
	}
	if err := e.Verifier.Verify(r.Header, body); err != nil {
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return nil, false
	}
	return body, true
}

func (e Endpoint) challenged(w http.ResponseWriter, body []byte) bool {
	if !e.SlackChallenge {
		return false
	}
	challenge, asked := SlackChallenge(body)
	if asked {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		_, _ = io.WriteString(w, challenge) // an error means that the sender has gone
	}
	return asked
}

// once calls next unless the delivery was handled before.
func (e Endpoint) once(w http.ResponseWriter, r *http.Request, next http.Handler) {
	id := IDOf(r.Header)
	if e.Seen == nil || id == "" {
		next.ServeHTTP(w, r)
		return
	}
	claim, err := e.Seen.Claim(r.Context(), id)
	switch {
	case errors.Is(err, ErrHandled):
		_, _ = io.WriteString(w, "handled before\n")
		return
	case errors.Is(err, ErrInProgress):
		http.Error(w, "this delivery is being handled: try again later", http.StatusConflict)
		return
	case err != nil:
		e.failed(r, err)
		http.Error(w, "deliveries cannot be told apart: try again later", http.StatusServiceUnavailable)
		return
	}
	answer := &answer{ResponseWriter: w}
	handled := false
	defer func() { // also when next panics
		if err := settle(r.Context(), claim, handled); err != nil {
			e.failed(r, err)
		}
	}()
	next.ServeHTTP(answer, r)
	handled = answer.succeeded()
}

func (e Endpoint) failed(r *http.Request, err error) {
	if e.Failed != nil {
		e.Failed(r, err)
	}
}

// settle ends a claim, though the sender may have gone.
func settle(ctx context.Context, c Claim, handled bool) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), markTimeout)
	defer cancel()
	if handled {
		return c.Done(ctx)
	}
	return c.Release(ctx)
}

// answer notes the status of a response.
type answer struct {
	http.ResponseWriter
	status int
}

func (a *answer) WriteHeader(status int) {
	if a.status == 0 && status >= 200 { // 1xx come before the answer
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(p []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	return a.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the original.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// succeeded: a handler that writes nothing answers 200.
func (a *answer) succeeded() bool { return a.status <= 299 }

// rawBody is a body that knows all its bytes, however far it has been read.
type rawBody struct {
	*bytes.Reader
	all []byte
}

func newRawBody(all []byte) rawBody { return rawBody{bytes.NewReader(all), all} }

func (rawBody) Close() error { return nil }

// Body returns a request's body as it was received, though others have read it, or nil for a request that did
// not come through an Endpoint. It must not be changed.
func Body(r *http.Request) []byte {
	if b, ok := r.Body.(rawBody); ok {
		return b.all
	}
	return nil
}

// IDOf returns the id under which an Endpoint remembers a request: webhook-id, which goes first because it is the only
// one that a signature covers, X-Webhook-ID, X-GitHub-Delivery, X-Shopify-Webhook-Id, or ce-source and ce-id; empty when
// there is none. That of a batch belongs to just these
// deliveries in this order: one that comes again in other company is recognised by a Manager only.
func IDOf(header http.Header) string {
	for _, name := range []string{headerSignedID, headerID, "X-Github-Delivery", "X-Shopify-Webhook-Id"} {
		if id := header.Get(name); id != "" {
			return bounded(id)
		}
	}
	if id := header.Get("Ce-Id"); id != "" {
		return bounded(header.Get("Ce-Source") + " " + id) // only together they are unique (CloudEvents 1.0.2, id)
	}
	return ""
}

// bounded makes an id that every store can keep: a long or unprintable one is replaced by its hash.
func bounded(id string) string {
	const most = 300
	if len(id) <= most && utf8.ValidString(id) && !strings.Contains(id, "\x00") {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return "sha256 " + hex.EncodeToString(sum[:])
}
