package dispatch

import (
	"time"

	"golang.org/x/time/rate"

	"github.com/walhook/walhook/relay/delivery"
)

// Circuit parameters: a run of this many failures that has lasted this long opens it; then everything but
// one probe at a time waits, for a time that doubles while probes fail.
const (
	circuitFailures = 20
	circuitLasting  = 5 * time.Second
	circuitFirst    = time.Second
	circuitLongest  = 30 * time.Second
	// While the run of failures is that long but the circuit is not open yet, a lane takes this many deliveries
	// from the queue and rests after them: claiming and putting back is work for the database.
	falteringAppetite = 16
	falteringRest     = 50 * time.Millisecond
	// A lane with a rate limit takes no more from the queue than it can send in that time: what waits longer
	// than its lease allows was claimed in vain, and behind it everything else would come too late as well.
	rateAhead = 10 // seconds
)

// lane is one subscription's way out. It is plain state under the dispatcher's lock: an idle one costs
// nothing but its memory.
type lane struct {
	settings *delivery.Settings
	expected int64 // revision below which the settings are known to be old
	fresh    fifo  // first attempts, straight from memory
	claimed  fifo  // deliveries claimed from the queue
	bytes    int   // of claimed deliveries, those under way included
	turn     bool  // whose turn it is when both wait
	inFlight int
	listed   bool // stands in the list of ready lanes

	// viaQueue sends new deliveries to the queue, because the lane fell behind; it ends when the queue
	// holds nothing due for it.
	viaQueue bool
	// hungry means that the last claim took all it was allowed: there may be more.
	hungry bool

	failures  int           // in a row
	failing   time.Time     // since when
	open      bool          // the circuit
	cooldown  time.Duration // of the open circuit
	openUntil time.Time
	restUntil time.Time // while it falters
	probing   bool      // the attempt that started last goes through the open circuit

	limiter *rate.Limiter
	timer   *time.Timer // wakes the lane when the rate allows the next request
}

func newLane(s *delivery.Settings) *lane {
	l := &lane{}
	l.set(s)
	return l
}

// set takes new settings over.
func (l *lane) set(s *delivery.Settings) {
	old := l.settings
	l.settings = s
	switch {
	case s.RateLimit == 0:
		l.limiter = nil
	case l.limiter == nil:
		l.limiter = rate.NewLimiter(rate.Limit(s.RateLimit), 1)
	default:
		l.limiter.SetLimit(rate.Limit(s.RateLimit))
	}
	if old != nil && (old.URL != s.URL || !old.Usable() && s.Usable()) {
		l.failures, l.open, l.cooldown = 0, false, 0 // another receiver, or one that somebody vouches for again
	}
}

// runnable reports whether an attempt may start now.
func (l *lane) runnable(now time.Time) bool {
	if l.fresh.len()+l.claimed.len() == 0 || !l.settings.Usable() || l.stale() {
		return false
	}
	if l.open {
		return l.inFlight == 0 && l.claimed.len() > 0 && !now.Before(l.openUntil)
	}
	return l.inFlight < l.settings.MaxInFlight
}

// pop takes the next delivery, in turn from memory and from the queue. Through an open circuit only a
// claimed one goes, as the probe.
func (l *lane) pop() *delivery.Delivery {
	l.turn = !l.turn
	if l.open || l.fresh.len() == 0 || l.turn && l.claimed.len() > 0 {
		return l.claimed.pop()
	}
	return l.fresh.pop()
}

// late reports that the lane's settings allow an attempt of the delivery that would outlast its lease.
func (l *lane) late(v *delivery.Delivery, now time.Time) bool {
	return !v.Lease.IsZero() && now.Add(l.settings.Timeout).After(v.Lease)
}

// dropLate takes out what stands at the head of the claimed deliveries and waited there too long.
func (l *lane) dropLate(now time.Time) (late []*delivery.Delivery) {
	for v := l.claimed.peek(); v != nil && l.late(v, now); v = l.claimed.peek() {
		late = append(late, l.claimed.pop())
	}
	return late
}

// finished takes the result of an attempt into account and reports whether it opened the circuit.
func (l *lane) finished(o *delivery.Outcome, now time.Time) (opened bool) {
	l.inFlight--
	switch {
	case !o.Counts():
	case o.Succeeded():
		l.failures, l.open, l.cooldown = 0, false, 0
	default:
		if l.failures++; l.failures == 1 {
			l.failing = now
		}
		// Attempts that were under way when the circuit opened don't open it again, only a failed probe does.
		if l.failures >= circuitFailures && now.Sub(l.failing) >= circuitLasting && (!l.open || l.probing) {
			l.cooldown = min(max(l.cooldown*2, circuitFirst), circuitLongest)
			l.open, l.viaQueue, l.probing = true, true, false
			l.openUntil = now.Add(l.cooldown)
			return true
		}
	}
	return false
}

// falters reports that the lane's last attempts have all failed. Its deliveries then wait in the queue and not
// in memory, where everything behind them waits to be recorded: even before the circuit opens, a dead receiver
// must not hold back the stream.
func (l *lane) falters() bool { return l.failures >= circuitFailures }

// rests reports that a faltering lane has done what it took, and sets how long it takes nothing.
func (l *lane) rests(now time.Time) bool {
	if !l.falters() || l.open || l.inFlight+l.claimed.len() > 0 {
		return false
	}
	l.restUntil = now.Add(falteringRest)
	return true
}

// ahead is how many claimed deliveries the lane may have at a time: those in flight and as many that are ready
// to follow, or what its rate lets it send soon.
func (l *lane) ahead() int {
	most := 2 * l.settings.MaxInFlight
	if l.settings.RateLimit > 0 {
		most = min(most, l.settings.RateLimit*rateAhead)
	}
	return most
}

// stale reports that the subscription has been changed and the lane does not have its new settings yet.
func (l *lane) stale() bool { return l.settings.Revision < l.expected }

// appetite is how many deliveries the lane would take from the queue now.
func (l *lane) appetite(now time.Time) int {
	switch {
	case !l.settings.Usable() || l.stale():
		return 0
	case l.open && (now.Before(l.openUntil) || l.inFlight+l.claimed.len() > 0):
		return 0
	case l.open:
		return 1
	}
	most := l.ahead()
	if l.falters() {
		if now.Before(l.restUntil) {
			return 0
		}
		most = min(most, falteringAppetite)
	}
	return max(0, most-l.inFlight-l.claimed.len())
}

// fifo is a queue of deliveries. A withdrawn one leaves a nil behind that pop passes over.
type fifo struct {
	items []*delivery.Delivery
	head  int
	holes int
}

func (f *fifo) len() int { return len(f.items) - f.head - f.holes }

func (f *fifo) push(d *delivery.Delivery) {
	if f.head > 64 && f.head*2 > len(f.items) {
		n := copy(f.items, f.items[f.head:])
		clear(f.items[n:])
		f.items, f.head = f.items[:n], 0
	}
	f.items = append(f.items, d)
}

func (f *fifo) pop() *delivery.Delivery {
	for f.head < len(f.items) {
		d := f.items[f.head]
		f.items[f.head] = nil
		f.head++
		if d != nil {
			return d
		}
		f.holes--
	}
	f.items, f.head = f.items[:0], 0
	return nil
}

// peek returns what pop would, and leaves it there.
func (f *fifo) peek() *delivery.Delivery {
	for _, d := range f.items[f.head:] {
		if d != nil {
			return d
		}
	}
	return nil
}

// remove takes d out, wherever it stands, and reports whether it was there.
func (f *fifo) remove(d *delivery.Delivery) bool {
	for i := f.head; i < len(f.items); i++ {
		if f.items[i] != d {
			continue
		}
		f.items[i] = nil
		if i == f.head {
			f.head++ // the usual case: the oldest is withdrawn first
		} else {
			f.holes++
		}
		return true
	}
	return false
}

// drain takes everything out.
func (f *fifo) drain() []*delivery.Delivery {
	var all []*delivery.Delivery
	for d := f.pop(); d != nil; d = f.pop() {
		all = append(all, d)
	}
	return all
}
