package dispatch_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/walhook/walhook/relay/delivery"
)

// plan is what happens to a model: drawn at once, because what happens in a bubble cannot ask for more.
type plan struct {
	seed    uint64
	senders int
	lanes   []*delivery.Settings
	steps   []step
}

// step lets time pass, then changes a lane's settings, or enters an event for all lanes.
type step struct {
	after  time.Duration
	key    string
	lane   int
	change func(*delivery.Settings)
}

func drawPlan(t *rapid.T) plan {
	p := plan{seed: rapid.Uint64().Draw(t, "seed"), senders: rapid.IntRange(1, 12).Draw(t, "senders")}
	for i := range rapid.IntRange(1, 5).Draw(t, "lanes") {
		s := &delivery.Settings{SubscriptionID: uuid.UUID{15: byte(i + 1)}, Revision: 1, Active: true, Timeout: 3 * time.Second,
			Tenant:   rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "tenant"),
			Ordering: rapid.SampledFrom([]delivery.Ordering{delivery.OrderNone, delivery.OrderKey, delivery.OrderStrict}).Draw(t, "ordering")}
		changed(t)(s)
		p.lanes = append(p.lanes, s)
	}
	for range rapid.IntRange(1, 150).Draw(t, "steps") {
		s := step{after: time.Duration(rapid.SampledFrom([]int{0, 0, 0, 1, 30, 400, 2500}).Draw(t, "ms")) * time.Millisecond}
		if rapid.IntRange(0, 9).Draw(t, "kind") == 0 {
			s.lane, s.change = rapid.IntRange(0, len(p.lanes)-1).Draw(t, "lane"), changed(t)
		} else {
			s.key = rapid.SampledFrom([]string{"", "k", "l", "m"}).Draw(t, "key")
		}
		p.steps = append(p.steps, s)
	}
	return p
}

// changed draws settings that change while a lane lives.
func changed(t *rapid.T) func(*delivery.Settings) {
	inFlight, size := rapid.IntRange(1, 4).Draw(t, "max_in_flight"), rapid.SampledFrom([]int{1, 1, 2, 5}).Draw(t, "batch_size")
	wait := time.Duration(rapid.SampledFrom([]int{0, 0, 100, 1500}).Draw(t, "batch_wait")) * time.Millisecond
	rate, active := rapid.SampledFrom([]int{0, 0, 0, 5}).Draw(t, "rate"), rapid.IntRange(0, 3).Draw(t, "active") > 0
	return func(s *delivery.Settings) {
		s.MaxInFlight, s.BatchSize, s.BatchWait, s.RateLimit, s.Active = inFlight, size, wait, rate, active
	}
}

// run plays a plan, then lets everything end, and returns what was wrong.
func (p plan) run() []string {
	ctx, cancel := context.WithCancel(context.Background())
	m := newModel(ctx, p.seed, p.senders)
	defer func() { cancel(); m.Stop() }()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for ticker := time.NewTicker(modelRecord); ; {
			select {
			case <-ticker.C:
				m.record(false)
				m.claim()
			case <-stop:
				return
			}
		}
	}()
	defer func() { close(stop); <-stopped }()
	for _, s := range p.lanes {
		m.Set(s)
	}
	for i, s := range p.steps {
		time.Sleep(s.after)
		p.take(m, i, s)
	}
	m.heal(p.lanes)
	for range 600 {
		time.Sleep(time.Second)
		synctest.Wait()
		if m.done() {
			break
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.left > 0 {
		m.wrongly("%d deliveries were forgotten, %d of them in the queue", m.left, len(m.rows))
	}
	if c := m.Counts(); len(m.wrong) == 0 && (c.Claimed != 0 || c.InFlight != 0) {
		m.wrongly("all has ended, and the dispatcher counts %+v", c)
	}
	return m.wrong
}

// take takes one step.
func (p plan) take(m *model, i int, s step) {
	if s.change != nil {
		later := *p.lanes[s.lane]
		later.Revision++
		s.change(&later)
		p.lanes[s.lane] = &later
		m.Set(&later)
		return
	}
	e := &delivery.Event{ID: uuid.UUID{1, 14: byte(i >> 8), 15: byte(i)}, Key: s.key, Position: delivery.Position{LSN: delivery.LSN(i + 1), Index: 1}}
	named := *e
	named.Key = fmt.Sprint(s.key, i)
	for _, lane := range p.lanes {
		m.enter(&delivery.Delivery{ID: delivery.ID(e.ID, lane.SubscriptionID), SubscriptionID: lane.SubscriptionID, Event: &named,
			Sequence: lane.Ordering.Sequence(e)})
	}
}

// heal makes all receivers and lanes good.
func (m *model) heal(lanes []*delivery.Settings) {
	m.mu.Lock()
	m.healed = true
	m.mu.Unlock()
	for _, s := range lanes {
		later := *s
		later.Revision++
		later.Active = true
		m.Set(&later)
	}
}

// done reports that everything has ended and is recorded.
func (m *model) done() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.left == 0 && len(m.items)+len(m.rows)+len(m.settled) == 0
}

// Whatever lanes, tenants, settings, outcomes and durations there are: nothing starts while its sequence has an earlier
// one unfinished, nor twice at a time, nor over a limit, nor under a lease that is too short; and nothing is forgotten.
func TestOrderAndLimitsHoldWhateverHappens(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := drawPlan(rt)
		var wrong []string
		synctest.Test(t, func(*testing.T) { wrong = p.run() })
		if len(wrong) > 0 {
			rt.Fatalf("%d things are wrong, first:\n%s", len(wrong), strings.Join(wrong[:min(5, len(wrong))], "\n"))
		}
	})
}
