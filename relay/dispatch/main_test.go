package dispatch_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/dispatch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// claimedBytes is the room that a world has for claimed events.
const claimedBytes = 1 << 20

// receiver answers an attempt; it may take its time.
type receiver func(ctx context.Context, d *delivery.Delivery, s *delivery.Settings) delivery.Outcome

// takes is a receiver that answers after a while, unless the relay breaks the attempt off.
func takes(while time.Duration, reason delivery.Reason) receiver {
	return func(ctx context.Context, _ *delivery.Delivery, _ *delivery.Settings) delivery.Outcome {
		select {
		case <-time.After(while):
			return delivery.Outcome{Reason: reason}
		case <-ctx.Done():
			return delivery.Outcome{Reason: delivery.ReasonStopped}
		}
	}
}

// world is what surrounds a dispatcher: receivers and a ledger. Its clock is the bubble's.
type world struct {
	*dispatch.Dispatcher
	t        *testing.T
	began    time.Time
	breakOff context.CancelFunc

	mu       sync.Mutex
	receiver map[uuid.UUID]receiver
	attempts []attempt
	requests []request
	placed   delivery.LSN // of the last delivery that got a place
	inFlight map[uuid.UUID]int
	peak     map[uuid.UUID]int // uuid.Nil: over all lanes
	finished []*delivery.Delivery
	released []*delivery.Delivery
	hungry   int
}

// attempt is one that started.
type attempt struct {
	key string
	at  time.Duration // since the world began
	url string
}

// request is one attempt with all that it carried.
type request struct {
	at   time.Duration
	keys []string
}

func newWorld(t *testing.T, senders int) *world {
	ctx, cancel := context.WithCancel(context.Background())
	w := &world{t: t, began: time.Now(), breakOff: cancel, receiver: map[uuid.UUID]receiver{}, inFlight: map[uuid.UUID]int{}, peak: map[uuid.UUID]int{}}
	w.Dispatcher = dispatch.New(ctx, dispatch.Options{MaxSenders: senders, MaxClaimedBytes: claimedBytes, Hungry: w.notify}, w, w)
	return w
}

// in runs a test in a bubble whose time is not real. Whatever the dispatcher still does is broken off at the end.
func in(t *testing.T, senders int, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, senders)
		defer func() { w.breakOff(); w.Stop() }()
		f(w)
	})
}

func (w *world) notify() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hungry++
}

func (w *world) Send(ctx context.Context, batch []*delivery.Delivery, s *delivery.Settings) delivery.Outcome {
	d := batch[0]
	w.mu.Lock()
	w.attempts = append(w.attempts, attempt{d.Event.Key, time.Since(w.began), s.URL})
	w.requests = append(w.requests, request{time.Since(w.began), names(batch)})
	for _, id := range []uuid.UUID{d.SubscriptionID, uuid.Nil} {
		w.inFlight[id]++
		w.peak[id] = max(w.peak[id], w.inFlight[id])
	}
	answer := w.receiver[d.SubscriptionID]
	w.mu.Unlock()
	o := answer(ctx, d, s)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.inFlight[d.SubscriptionID]--
	w.inFlight[uuid.Nil]--
	return o
}

func (w *world) Finished(batch []*delivery.Delivery, _ *delivery.Settings, o delivery.Outcome) (over bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.finished = append(w.finished, batch...)
	return o.Succeeded()
}

func (w *world) Released(all []*delivery.Delivery) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.released = append(w.released, all...)
}

// lane makes a subscription with a receiver; its settings may be changed before they are set.
func (w *world) lane(r receiver, change func(s *delivery.Settings)) *delivery.Settings {
	s := &delivery.Settings{SubscriptionID: uuid.New(), Revision: 1, URL: "one", Active: true, MaxInFlight: 16, Timeout: 30 * time.Second}
	if change != nil {
		change(s)
	}
	w.mu.Lock()
	w.receiver[s.SubscriptionID] = r
	w.mu.Unlock()
	w.Set(s)
	return s
}

// changed gives a lane a later revision of its settings.
func (w *world) changed(s *delivery.Settings, change func(s *delivery.Settings)) *delivery.Settings {
	later := *s
	later.Revision++
	change(&later)
	w.Set(&later)
	return &later
}

// fresh makes deliveries, named by prefix and number, from memory.
func fresh(s *delivery.Settings, prefix string, n int) []*delivery.Delivery {
	all := make([]*delivery.Delivery, n)
	for i := range all {
		e := &delivery.Event{ID: uuid.New(), Key: fmt.Sprint(prefix, i)}
		all[i] = &delivery.Delivery{ID: delivery.ID(e.ID, s.SubscriptionID), SubscriptionID: s.SubscriptionID, Event: e}
	}
	return all
}

// ordered makes deliveries of a sequence, named by prefix and number, with places behind all that were made before.
func (w *world) ordered(s *delivery.Settings, sequence, prefix string, n int) []*delivery.Delivery {
	all := fresh(s, prefix, n)
	for _, d := range all {
		w.placed++
		d.Sequence, d.Event.Position = sequence, delivery.Position{LSN: w.placed, Index: 1}
	}
	return all
}

// names are the names of deliveries.
func names(all []*delivery.Delivery) []string {
	keys := make([]string, len(all))
	for i, d := range all {
		keys[i] = d.Event.Key
	}
	return keys
}

func ids(all []*delivery.Delivery) []uuid.UUID {
	out := make([]uuid.UUID, len(all))
	for i, d := range all {
		out[i] = d.ID
	}
	return out
}

// sent is what the requests so far carried, each in its order; at is when they started.
func (w *world) sent() (carried [][]string, at []time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.requests {
		carried, at = append(carried, r.keys), append(at, r.at)
	}
	return carried, at
}

// offer offers deliveries from memory and returns how many were taken.
func (w *world) offer(all []*delivery.Delivery) (taken int) {
	for _, d := range all {
		if w.Offer(d) {
			taken++
		}
	}
	return taken
}

// claimed hands over deliveries from the queue and returns how many were taken.
func (w *world) claimed(all []*delivery.Delivery) (taken int) {
	for _, d := range all {
		d.Queued, d.Lease = true, time.Now().Add(time.Hour)
	}
	return len(all) - len(w.Claimed(all))
}

// keys are the attempts so far in the order in which they started.
func (w *world) keys() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	keys := []string{}
	for _, a := range w.attempts {
		keys = append(keys, a.key)
	}
	return keys
}

// times are when the attempts so far started, in order.
func (w *world) times() []time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []time.Duration
	for _, a := range w.attempts {
		all = append(all, a.at)
	}
	slices.SortFunc(all, cmp.Compare[time.Duration])
	return all
}

// ended counts the attempts that ended so far.
func (w *world) ended() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.finished)
}

func (w *world) givenBack() []*delivery.Delivery {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.released)
}

// takeBack returns what was given back since the last call.
func (w *world) takeBack() []*delivery.Delivery {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.released
	w.released = nil
	return all
}

// asked is how often the dispatcher was hungry.
func (w *world) asked() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.hungry
}

func (w *world) appetite(s *delivery.Settings) int {
	n, _ := w.Appetite(s.SubscriptionID, time.Now())
	return n
}

// pass lets time go by until everything that happens in it has happened.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
