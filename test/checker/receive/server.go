// Package receive is the receivers of the checker: one HTTP server that logs every request to disk before it
// answers, and that answers as it is told to.
package receive

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/walhook/walhook/test/checker/history"
)

// Server receives what is posted to /s/<subscription's id>, and to any path below. Its methods may be called
// from any goroutine.
//
// A request whose body was read whole is on disk before anything is answered: handle enforces it.
type Server struct {
	addr     string
	http     http.Server
	served   chan struct{} // closed when no connection is accepted any more
	journal  *journal
	handlers sync.WaitGroup // requests that have arrived; they use the journal

	mu         sync.Mutex
	closed     bool
	random     *rand.Rand
	behaviours map[uuid.UUID]Behaviour
	override   Behaviour // of all subscriptions, unless empty
	healed     chan struct{}
	receipts   []history.Receipt // Seq is the index plus 1
	open       int
	settled    map[settlement]struct{}
	strays     []string
}

// settlement is an event that a subscription's receiver has accepted.
type settlement struct {
	subscription uuid.UUID
	number       int64
}

// New starts a server on a loopback port. It logs to path, where nothing may be yet. The seed decides what is
// left to chance in the behaviours.
func New(path string, seed uint64) (*Server, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("log of receipts: %w", err)
	}
	s, err := serve(file, seed)
	if err != nil {
		_ = file.Close() // nothing was written
		return nil, err
	}
	return s, nil
}

// serve is New on a file, which the server owns unless this fails.
func serve(file *os.File, seed uint64) (*Server, error) {
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, fmt.Errorf("receive: %w", err)
	}
	s := &Server{
		addr:       listener.Addr().String(),
		served:     make(chan struct{}),
		journal:    newJournal(file),
		random:     rand.New(rand.NewPCG(seed, 0)),
		behaviours: make(map[uuid.UUID]Behaviour),
		healed:     make(chan struct{}),
		settled:    make(map[settlement]struct{}),
	}
	s.http.Handler = http.HandlerFunc(s.handle)
	go func() {
		defer close(s.served)
		_ = s.http.Serve(listener) // ends with http.ErrServerClosed
	}()
	return s, nil
}

// Addr is where the server listens, host:port.
func (s *Server) Addr() string { return s.addr }

// URL is the base of all URLs, http://host:port without a path.
func (s *Server) URL() string { return "http://" + s.addr }

// CloseIdle closes the connections that wait for another request, so that a relay's descriptors can return to
// their base. One on which no request has ever come counts after five seconds. It is for times when nothing is
// sent: a request that is just on its way would be lost.
func (s *Server) CloseIdle() {
	s.http.SetKeepAlivesEnabled(false)
	s.http.SetKeepAlivesEnabled(true)
}

// Close breaks off what is under way and closes the log. Its error is that of the log: after it, requests were
// not answered any more.
func (s *Server) Close() error {
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	if closed {
		return nil
	}
	_ = s.http.Close()
	<-s.served
	_ = s.http.Close() // for a connection that was accepted during the first one
	s.handlers.Wait()
	if err := s.journal.close(); err != nil {
		return fmt.Errorf("log of receipts: %w", err)
	}
	return nil
}

// Receipts returns what has arrived, in order of arrival. A request that is not answered yet has a zero
// AnsweredAt.
func (s *Server) Receipts() []history.Receipt {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.receipts)
}

// Settled is how many pairs of a subscription and an event's number were answered with 2xx.
func (s *Server) Settled() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.settled)
}

// Got reports whether an event has been answered with 2xx for a subscription.
func (s *Server) Got(subscription uuid.UUID, number int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, got := s.settled[settlement{subscription, number}]
	return got
}

// Open is how many requests have arrived and are not answered yet.
func (s *Server) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open
}

// Strays returns the requests that belong to no subscription, which nothing should ever send: method, path
// and X-Webhook-ID.
func (s *Server) Strays() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.strays)
}

// handle reads a request, logs it and answers.
func (s *Server) handle(w http.ResponseWriter, r *http.Request) {
	subscription, err := addressee(r)
	if err == nil && r.Method == http.MethodOptions {
		w.Header().Set("WebHook-Allowed-Origin", "*") // agrees to whoever asks
		return
	}
	if err != nil || r.Method != http.MethodPost {
		s.stray(r)
		http.NotFound(w, r)
		return
	}
	body, err := read(r)
	if err != nil {
		panic(http.ErrAbortHandler) // the client broke off, so this was no request
	}
	e := &exchange{w: w, r: r, receipt: receiptOf(r, subscription, body), numbers: numbers(body)}
	if !s.arrive(e) {
		panic(http.ErrAbortHandler)
	}
	defer s.handlers.Done()
	reusable := false
	if err := s.journal.persist(e.receipt); err == nil {
		reusable = e.answer()
	} else { // Close tells of it
		e.receipt.AnsweredAt = time.Now()
	}
	s.finish(e)
	if !reusable {
		panic(http.ErrAbortHandler) // net/http's way to close a connection; returning could mean 200
	}
}

// addressee is the subscription that a request is for.
func addressee(r *http.Request) (uuid.UUID, error) {
	path, ok := strings.CutPrefix(r.URL.Path, "/s/")
	if !ok {
		return uuid.Nil, errors.New("not a receiver's")
	}
	id, _, _ := strings.Cut(path, "/")
	return uuid.Parse(id)
}

func (s *Server) stray(r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.strays = append(s.strays, fmt.Sprintf("%s %s %s", r.Method, r.URL.Path, r.Header.Get("X-Webhook-ID")))
}

// read reads the whole body.
func read(r *http.Request) ([]byte, error) {
	var body bytes.Buffer
	body.Grow(int(max(r.ContentLength, 0)) + bytes.MinRead) // so that it never grows when the length is known
	_, err := body.ReadFrom(r.Body)
	return body.Bytes(), err
}

func receiptOf(r *http.Request, subscription uuid.UUID, body []byte) history.Receipt {
	attempt, err := strconv.Atoi(r.Header.Get("X-Webhook-Attempt"))
	if err != nil {
		attempt = 0
	}
	return history.Receipt{
		Subscription: subscription,
		Path:         r.URL.Path,
		Delivery:     r.Header.Get("X-Webhook-ID"),
		Type:         r.Header.Get("X-Webhook-Event"),
		Attempt:      attempt,
		Batch:        r.Header.Get("X-Webhook-Batch"),
		Signature:    signature(r.Header),
		Body:         body,
	}
}

// signing are the headers by which requests are signed, and those that only go with a signature.
var signing = []string{
	"X-Webhook-Signature", "Webhook-Signature", "Webhook-Id", "Webhook-Timestamp", "X-Hub-Signature-256", "X-Github-Event", "X-Github-Delivery",
	"Stripe-Signature", "X-Shopify-Hmac-Sha256", "X-Shopify-Topic", "X-Shopify-Webhook-Id", "X-Slack-Signature", "X-Slack-Request-Timestamp",
}

// signature picks those headers. One that came more than once has its values joined, as no scheme has them.
func signature(h http.Header) map[string]string {
	found := map[string]string{}
	for _, name := range signing {
		if values := h.Values(name); len(values) > 0 {
			found[name] = strings.Join(values, "\n")
		}
	}
	if len(found) == 0 {
		return nil
	}
	return found
}

// numbers are those of the events in a body, which may be an array.
func numbers(body []byte) []int64 {
	var elements []json.RawMessage
	if json.Unmarshal(body, &elements) != nil {
		return []int64{number(body)}
	}
	all := make([]int64, len(elements))
	for i, element := range elements {
		all[i] = number(element)
	}
	return all
}

// number is the event's number: of the envelope's event_data, or else of the body itself.
func number(body []byte) int64 {
	var envelope struct {
		Data json.RawMessage `json:"event_data"`
	}
	if json.Unmarshal(body, &envelope) == nil && envelope.Data != nil {
		return history.Number(envelope.Data)
	}
	return history.Number(body)
}

// arrive gives a request its place in the order and decides what to do with it. It returns false when the
// server is being closed; otherwise finish and handlers.Done have to follow.
func (s *Server) arrive(e *exchange) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.handlers.Add(1)
	behaviour, delay := s.choose(e.receipt.Subscription)
	e.delay, e.healed = delay, s.healed
	e.receipt.Behaviour = string(behaviour)
	e.receipt.Seq = int64(len(s.receipts)) + 1
	e.receipt.ArrivedAt = time.Now()
	s.receipts = append(s.receipts, e.receipt)
	s.open++
	return true
}

// finish completes a receipt that was answered or given up.
func (s *Server) finish(e *exchange) {
	receipt := &e.receipt
	s.journal.note(completion{Answered: receipt.Seq, AnsweredAt: receipt.AnsweredAt, Status: receipt.Status})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.receipts[receipt.Seq-1] = *receipt
	s.open--
	for _, n := range e.numbers {
		if receipt.Status/100 == 2 && n >= 0 {
			s.settled[settlement{receipt.Subscription, n}] = struct{}{}
		}
	}
}
