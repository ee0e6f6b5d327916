package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/outbox/receiver"
)

// committedDelivery is one that is due.
func committedDelivery(l *demoLedger) uuid.UUID {
	id := uuid.New()
	l.announce([]uuid.UUID{id})
	l.committed(1, []uuid.UUID{id})
	return id
}

func TestLedgerIsContentWhenEverythingArrives(t *testing.T) {
	l := newDemoLedger()
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
			l := newDemoLedger()
			c.do(l)
			require.ErrorContains(t, l.verdict(), c.want)
		})
	}
}

func TestLedgerCountsDeadLetters(t *testing.T) {
	l := newDemoLedger()
	id := committedDelivery(l)
	settled := l.settled()
	l.bury(id)
	l.bury(id)
	<-settled
	require.Equal(t, 1, l.summary(0).Dead)
	require.Zero(t, l.summary(0).P99MS)
}

func TestLedgerForgetsBoundedly(t *testing.T) {
	l := newDemoLedger()
	last := uuid.Nil
	for range 3 * ledgerMemory {
		last = committedDelivery(l)
		l.arrived(last, time.Millisecond, true)
	}
	require.LessOrEqual(t, len(l.done)+len(l.doneOld), 2*ledgerMemory)
	require.Len(t, l.latency, ledgerSamples)
	l.arrived(last, 0, true)
	require.NoError(t, l.verdict())
}

func TestQuantilesAreNearestRank(t *testing.T) {
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
	l := newDemoLedger()
	verifier, err := receiver.NewVerifier(receiver.Options{Scheme: receiver.SHA256, Secrets: []string{"s"}})
	require.NoError(t, err)
	r := &demoReceiver{name: "test", verifier: verifier, ledger: l, say: newNarrator(&bytes.Buffer{}, false)}
	id := committedDelivery(l).String()
	require.Equal(t, 401, post(r, "other", id, "visit.started", 1))
	require.Equal(t, 401, post(r, "s", id, "visit.finished", 1), "the header must agree with the body")
	require.Equal(t, 2, l.forged)
	require.Equal(t, 200, post(r, "s", id, "visit.started", 1))
	require.Equal(t, 1, l.summary(0).Delivered)
}

func TestOutagesPassByThemselves(t *testing.T) {
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
	c := &clinic{ledger: newDemoLedger(), random: rand.New(rand.NewPCG(1, 2))}
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
			for _, r := range demoReceivers() {
				if r.wants(e) {
					matched[r.name]++
				}
			}
		}
	}
	for _, family := range []string{"patient", "appointment", "visit", "queue", "payment", "user", "system"} {
		require.NotZero(t, families[family], family)
	}
	require.Len(t, matched, len(demoReceivers()), "every receiver gets something")
	require.Greater(t, matched["data warehouse"], matched["accounting"])
	for name, n := range map[string]int{"rolled back": rolled, "undone": undone, "emitted": emitted, "large": large} {
		require.NotZero(t, n, name)
	}
}

// The last transaction is cut to what is still wanted.
func TestClinicPublishesExactlyWhatIsWanted(t *testing.T) {
	l := newDemoLedger()
	c := &clinic{ledger: l, random: rand.New(rand.NewPCG(1, 2)), options: demoOptions{events: 37}}
	for l.events() < 37 {
		if tx := c.next(); !tx.rolled {
			l.committed(len(tx.events), nil)
		}
	}
	require.Equal(t, 37, l.events())
}
