package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/outbox"
	"github.com/walhook/walhook/outbox/receiver"
	"github.com/walhook/walhook/relay/admin"
	"github.com/walhook/walhook/test/harness"
)

// committedDelivery is one that is due.
func committedDelivery(l *demoLedger) uuid.UUID {
	id := uuid.New()
	l.announce([]uuid.UUID{id})
	l.committed(1, []uuid.UUID{id})
	return id
}

func TestLedgerIsContentWhenEverythingArrives(t *testing.T) {
	t.Parallel()
	l := newDemoLedger(false)
	early := uuid.New()
	l.announce([]uuid.UUID{early})
	l.arrived(early, time.Millisecond, true) // before the application hears of its commit
	l.committed(1, []uuid.UUID{early})
	refused := committedDelivery(l)
	settled := l.settled()
	l.arrived(refused, 2*time.Millisecond, false)
	l.arrived(refused, time.Hour, false) // a retry's delay is the schedule's, not the relay's
	select {
	case <-settled:
		t.Fatal("settled although a delivery is open")
	default:
	}
	l.arrived(refused, time.Hour, true)
	<-settled
	l.arrived(refused, time.Hour, true) // at least once
	l.recorded(0, 2)
	require.NoError(t, l.verdict())
	require.Equal(t, demoSummary{Events: 2, Deliveries: 2, Delivered: 2, Retried: 1, Seconds: 3, P50MS: 1, P99MS: 2}, l.summary(3*time.Second))
	require.Equal(t, 1, l.repeated)
}

func TestLedgerNoticesWhatIsWrong(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, want string
		do         func(*demoLedger)
	}{
		{"lost", "1 deliveries of committed events were not received", func(l *demoLedger) { committedDelivery(l); l.recorded(0, 0) }},
		{"refused for ever", "1 deliveries of committed events were not received", func(l *demoLedger) {
			l.arrived(committedDelivery(l), 0, false)
			l.recorded(0, 0)
		}},
		{"rolled back", "1 requests arrived for events that were rolled back", func(l *demoLedger) { l.arrived(uuid.New(), 0, true) }},
		{"refused, rolled back", "1 requests arrived for events that were rolled back", func(l *demoLedger) { l.arrived(uuid.New(), 0, false) }},
		{"forged", "1 requests had a wrong signature", func(l *demoLedger) { l.forgery() }},
		{"not recorded", "receivers took 1 deliveries, the calls log has 0", func(l *demoLedger) {
			l.arrived(committedDelivery(l), 0, true)
			l.recorded(0, 0)
		}},
		{"still queued", "1 deliveries still wait", func(l *demoLedger) {
			l.arrived(committedDelivery(l), 0, true)
			l.recorded(1, 1)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newDemoLedger(false)
			c.do(l)
			require.ErrorContains(t, l.verdict(), c.want)
		})
	}
}

func TestLedgerCountsDeadLetters(t *testing.T) {
	t.Parallel()
	l := newDemoLedger(false)
	id := committedDelivery(l)
	settled := l.settled()
	l.bury(id)
	l.bury(id)
	<-settled
	require.Equal(t, 1, l.summary(0).Dead)
	require.Zero(t, l.summary(0).P99MS)
}

func TestLedgerForgetsBoundedly(t *testing.T) {
	t.Parallel()
	l := newDemoLedger(false)
	last := uuid.Nil
	for range 3 * ledgerMemory {
		last = committedDelivery(l)
		l.arrived(last, time.Millisecond, true)
	}
	require.LessOrEqual(t, len(l.done.now)+len(l.done.before), 2*ledgerMemory)
	require.Len(t, l.latency, ledgerSamples)
	l.arrived(last, 0, true)
	require.NoError(t, l.verdict())
}

func TestQuantilesAreNearestRank(t *testing.T) {
	t.Parallel()
	var sorted []time.Duration
	for i := range 200 {
		sorted = append(sorted, time.Duration(i+1)*time.Millisecond)
	}
	require.InDelta(t, 100, quantileMS(sorted, 0.50), 1e-9)
	require.InDelta(t, 198, quantileMS(sorted, 0.99), 1e-9)
	require.InDelta(t, 1, quantileMS(sorted[:1], 0.99), 1e-9)
	require.Zero(t, quantileMS(nil, 0.5))
}

// post sends a demo receiver a delivery and returns its answer.
func post(r *demoReceiver, secret, id, event string, attempt int) int {
	body := fmt.Sprintf(`{"event_type":%q,"event_data":{},"webhook_id":%q,"timestamp":"2025-01-02T03:04:05.000000Z","attempt":%d}`, "visit.started", id, attempt)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(body))
	req := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
	req.Header.Set("X-Webhook-Event", event)
	req.Header.Set("X-Webhook-ID", id)
	req.Header.Set("X-Webhook-Attempt", fmt.Sprint(attempt))
	req.Header.Set("X-Webhook-Signature", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	return w.Code
}

func TestDemoReceiverVerifies(t *testing.T) {
	t.Parallel()
	l := newDemoLedger(false)
	verifier, err := receiver.NewVerifier(receiver.Options{Scheme: receiver.SHA256, Secrets: []string{"s"}})
	require.NoError(t, err)
	r := &demoReceiver{demoSubscription: demoSubscription{name: "test"}, verifier: verifier, ledger: l, say: newNarrator(&bytes.Buffer{}, false)}
	id := committedDelivery(l).String()
	require.Equal(t, 401, post(r, "other", id, "visit.started", 1))
	require.Equal(t, 401, post(r, "s", id, "visit.finished", 1), "the header must agree with the body")
	require.Equal(t, 2, l.forged)
	require.Equal(t, 200, post(r, "s", id, "visit.started", 1))
	require.Equal(t, 1, l.summary(0).Delivered)
}

func TestOutagesPassByThemselves(t *testing.T) {
	t.Parallel()
	now := time.Now()
	var o outages
	down := func(at time.Time) (n int) {
		for range demoCycle {
			if o.down(at) {
				n++
			}
		}
		return n
	}
	require.Equal(t, demoOutage, down(now), "that many in a row when requests come fast")
	require.Equal(t, demoOutage, down(now))
	slow := 0
	for i := range demoCycle {
		if o.down(now.Add(time.Duration(i) * demoDown)) {
			slow++
		}
	}
	require.Equal(t, 1, slow, "one when they come slowly")
}

// The demo must show all that it promises, also when it is short.
func TestClinicsDayHasEverything(t *testing.T) {
	t.Parallel()
	c := &clinic{ledger: newDemoLedger(false), random: rand.New(rand.NewPCG(1, 2))}
	families, matched := map[string]int{}, map[string]int{}
	var rolled, undone, emitted, large int
	for range 1200 {
		tx := c.next()
		require.NotEmpty(t, tx.events)
		if tx.rolled {
			rolled++
			continue
		}
		if len(tx.events) >= 300 {
			large++
		}
		undone += len(tx.undone)
		for _, e := range tx.events {
			require.NoError(t, e.Validate())
			family, _, _ := strings.Cut(e.Type, ".")
			families[family]++
			if e.emit {
				emitted++
			}
			for _, r := range demoReceivers(c.options) {
				if r.matches(e) {
					matched[r.name]++
				}
			}
		}
	}
	for _, family := range []string{"patient", "appointment", "visit", "queue", "payment", "user", "system", "object"} {
		require.NotZero(t, families[family], family)
	}
	require.Len(t, matched, len(demoReceivers(c.options)), "every receiver gets something")
	require.Greater(t, matched["data warehouse"], matched["accounting"])
	for name, n := range map[string]int{"rolled back": rolled, "undone": undone, "emitted": emitted, "large": large} {
		require.NotZero(t, n, name)
	}
}

// The last transaction is cut to what is still wanted.
func TestClinicPublishesExactlyWhatIsWanted(t *testing.T) {
	t.Parallel()
	l := newDemoLedger(false)
	c := &clinic{ledger: l, random: rand.New(rand.NewPCG(1, 2)), options: demoOptions{events: 37}}
	for l.events() < 37 {
		if tx := c.next(); !tx.rolled {
			l.committed(len(tx.events), nil)
		}
	}
	require.Equal(t, 37, l.events())
}

// Whoever looks around in a demo without an end may publish, test, replay and change subscriptions; what was rolled back
// may not come all the same.
func TestLedgerWithGuests(t *testing.T) {
	t.Parallel()
	l := newDemoLedger(true)
	l.arrived(uuid.New(), 0, true)
	require.NoError(t, l.verdict(), "somebody triggered it")
	undone := uuid.New()
	l.rolledBack([]uuid.UUID{undone})
	l.arrived(undone, 0, true)
	require.ErrorContains(t, l.verdict(), "1 requests arrived for events that were rolled back")

	l = newDemoLedger(true)
	l.forgery()
	require.ErrorContains(t, l.verdict(), "1 requests had a wrong signature")
	l.pardon()
	require.NoError(t, l.verdict(), "somebody rotated the secret")
}

func TestDemoLinks(t *testing.T) {
	t.Parallel()
	token := newDemoToken()
	require.Regexp(t, `^whk_[A-Za-z0-9_-]{43}$`, token.Reveal())
	require.NotEqual(t, token, newDemoToken())
	for _, c := range []struct{ ip, prefix, base string }{
		{"127.0.0.1", "", "http://127.0.0.1:8080"},
		{"127.0.0.1", "/hooks", "http://127.0.0.1:8080/hooks"},
		{"::1", "", "http://[::1]:8080"},
		{"0.0.0.0", "", "http://localhost:8080"},
		{"::", "", "http://localhost:8080"},
	} {
		l := newDemoLinks(&net.TCPAddr{IP: net.ParseIP(c.ip), Port: 8080}, c.prefix, token)
		require.Equal(t, demoLinks{
			dashboard: c.base + "/",
			login:     c.base + "/login#token=" + token.Reveal(),
			api:       fmt.Sprintf(`curl -H "Authorization: Bearer %s" %s/api/v1/webhooks/`, token.Reveal(), c.base),
		}, l)
	}
}

// The catalogue has all that happens in a day and the family of objects by their numbers, and what the day brings is as
// the schemas say.
func TestCatalogueFitsTheDay(t *testing.T) {
	t.Parallel()
	pool, err := pgxpool.New(t.Context(), harness.Database(t))
	require.NoError(t, err)
	defer pool.Close()
	conn, err := pool.Acquire(t.Context())
	require.NoError(t, err)
	require.NoError(t, catalogue(t.Context(), conn.Conn(), demoEventTypes()))
	conn.Release()
	desk := admin.New(pool, admin.Options{Slot: "walhook"}).For(&admin.Principal{Scopes: admin.Scopes})
	page, err := desk.EventTypes(t.Context(), admin.MaxLimit, "")
	require.NoError(t, err)
	known, schemas := map[string]*int{}, map[string]string{}
	for _, e := range page.Items {
		require.NotEmpty(t, e.Description, e.Name)
		known[e.Name] = e.Number
		if e.Schema != nil {
			schemas[e.Name] = e.Validation
		}
	}
	require.Equal(t, map[string]string{"patient.created": "warn", "payment.received": "reject"}, schemas)
	for number, name := range map[int]string{40: "object.created", 41: "object.changed", 42: "object.deleted", 43: "object.published", 44: "object.unpublished"} {
		require.Equal(t, &number, known[name], name)
	}
	c := &clinic{ledger: newDemoLedger(true), random: rand.New(rand.NewPCG(1, 2))}
	checked := map[string]int{}
	for range 200 {
		for _, e := range c.next().events {
			require.Contains(t, known, e.Type)
			if schemas[e.Type] == "" {
				continue
			}
			published, err := desk.Publish(t.Context(), e.Event)
			require.NoError(t, err)
			require.Empty(t, published.Warnings)
			checked[e.Type]++
		}
	}
	require.Len(t, checked, len(schemas))
	_, err = desk.Publish(t.Context(), outbox.Event{Type: "payment.received", Payload: map[string]any{"amount": -1}})
	require.ErrorContains(t, err, "payment.received", "the schema has teeth")
}

// Only who looks around gets more than what is counted.
func TestDemoThatMeasures(t *testing.T) {
	t.Parallel()
	require.Len(t, demoReceivers(demoOptions{}), len(demoReceivers(demoOptions{events: 1}))+1)
	c := &clinic{ledger: newDemoLedger(false), random: rand.New(rand.NewPCG(1, 2)), options: demoOptions{events: 100000}}
	for range 100 {
		for _, e := range c.next().events {
			require.Empty(t, e.Tenant)
		}
	}
	c.options.events = 0
	tenants := map[string]int{}
	for range 100 {
		for _, e := range c.next().events {
			tenants[e.Tenant]++
		}
	}
	require.Positive(t, tenants[demoBranch])
	require.Len(t, tenants, 2)
}

func TestBystanders(t *testing.T) {
	t.Parallel()
	s, err := startBystanders(t.Context())
	require.NoError(t, err)
	defer s.stop()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	var names []string
	for _, b := range demoBystanders(s.base) {
		names = append(names, b.name)
		if b.name == "archive" {
			continue // slow
		}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, b.url, strings.NewReader("{}"))
		require.NoError(t, err)
		response, err := client.Do(request)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		require.Equal(t, b.name == "laboratory", response.StatusCode == http.StatusInternalServerError, b.name)
		require.Contains(t, []int{http.StatusOK, http.StatusInternalServerError}, response.StatusCode, b.name)
	}
	require.Equal(t, []string{"laboratory", "archive", "pharmacy", "school of nursing"}, names)
}
