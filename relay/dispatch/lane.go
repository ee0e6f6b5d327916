package dispatch

import (
	"time"

	"github.com/google/uuid"
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
	// A lane that keeps order takes at least as many at a time: the next ones of a sequence can be claimed only when
	// these are recorded.
	orderedAhead = 256
)

// lane is one subscription's way out. It is plain state under the dispatcher's lock: an idle one costs
// nothing but its memory.
type lane struct {
	settings *delivery.Settings
	tenant   *tenant
	expected int64 // revision below which the settings are known to be old

	// What waits. Deliveries of a sequence wait there, all others in one of these.
	fresh     fifo // first attempts, straight from memory
	claimed   fifo // deliveries claimed from the queue
	sequences map[string]*sequence
	going     ring[*sequence]   // sequences that may have something to start, in turn
	turn      int               // which of the three is next
	waiting   time.Time         // since when something could start, for batch_wait
	backlog   bool              // sequences go through the queue, see fallBehind
	backlogTo delivery.Position // the last delivery that has, or will have, a row there

	nFresh, nClaimed int  // deliveries that wait, those of sequences included
	nFailed          int  // of nClaimed: those that failed before
	bytes            int  // of claimed deliveries, those under way included
	holds            int  // claimed deliveries, those under way included
	inFlight         int  // requests
	carried          int  // deliveries in them
	listed           bool // stands in its tenant's list of ready lanes
	parked           bool // has to wait until senders are free

	// viaQueue sends new deliveries to the queue, because the lane fell behind; it ends when the queue
	// holds nothing due for it.
	viaQueue bool
	behind   map[*lane]struct{} // the dispatcher's: has the lane while viaQueue or backlog is set
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
	fill    *time.Timer // wakes the lane when a batch has waited long enough
}

// set takes new settings over.
func (l *lane) set(s *delivery.Settings) {
	old := l.settings
	l.settings = s
	if l.fill != nil { // batch_wait may be another one now
		l.fill.Stop()
		l.fill = nil
	}
	switch limit := limitOf(s); {
	case limit == 0:
		l.limiter = nil
	case l.limiter == nil:
		l.limiter = rate.NewLimiter(limit, 1)
	default:
		l.limiter.SetLimit(limit)
	}
	if old != nil && (old.URL != s.URL || !old.Usable() && s.Usable()) {
		l.failures, l.open, l.cooldown = 0, false, 0 // another receiver, or one that somebody vouches for again
	}
}

// limitOf is the lower of what the subscription says and what its receiver allowed; 0 is no limit.
func limitOf(s *delivery.Settings) rate.Limit {
	limit, allowed := rate.Limit(s.RateLimit), rate.Limit(s.AllowedPerMinute)/60
	if limit == 0 || allowed > 0 && allowed < limit {
		return allowed
	}
	return limit
}

// unit is how many deliveries one request carries at most.
func (l *lane) unit() int { return max(1, l.settings.BatchSize) }

// runnable reports whether an attempt may start now.
func (l *lane) runnable(now time.Time) bool {
	if l.nFresh+l.nClaimed == 0 || !l.settings.Usable() || l.stale() {
		return false
	}
	if l.open {
		return l.inFlight == 0 && l.nClaimed > 0 && !now.Before(l.openUntil) && l.startable(1)
	}
	return l.inFlight < l.settings.MaxInFlight && l.startable(1) && l.full(now)
}

// startable reports whether at least n deliveries may start now.
func (l *lane) startable(n int) bool {
	if l.nFresh+l.nClaimed < n {
		return false
	}
	found := l.fresh.len() + l.claimed.len()
	for l.going.len() > 0 && l.going.waiting()[0].waits(l.backlog) == 0 {
		l.going.pop().listed = false
	}
	for _, s := range l.going.waiting() {
		if found >= n {
			break
		}
		found += s.waits(l.backlog)
	}
	return found >= n
}

// late reports that the lane's settings allow an attempt of the delivery that would outlast its lease.
func (l *lane) late(v *delivery.Delivery, now time.Time) bool {
	return !v.Lease.IsZero() && now.Add(l.settings.Timeout).After(v.Lease)
}

// dropLate takes out the claimed deliveries that could start next and waited too long, and of a sequence everything
// behind them as well.
func (l *lane) dropLate(now time.Time) (late []*delivery.Delivery) {
	isLate := func(v *delivery.Delivery) bool { return l.late(v, now) }
	if l.settings.Batches() {
		late = l.claimed.extract(isLate)
	}
	for v := l.claimed.peek(); v != nil && isLate(v); v = l.claimed.peek() {
		late = append(late, l.claimed.pop())
	}
	if l.nClaimed > l.claimed.len() { // any of the sequences may be taken next
		for _, s := range l.going.waiting() {
			if v := s.claimed.peek(); v != nil && isLate(v) {
				late = append(late, s.claimed.drain()...)
				l.touch(s)
			}
		}
	}
	for _, v := range late {
		l.unclaim(v)
	}
	return late
}

// drainFresh takes everything out that came from memory: it goes to the queue.
func (l *lane) drainFresh() []*delivery.Delivery {
	if l.nFresh == 0 {
		return nil // as after each failure of a lane that falters, however many sequences it has
	}
	all := l.fresh.drain()
	for _, s := range l.sequences {
		all = append(all, s.fresh.drain()...)
		l.touch(s)
	}
	l.nFresh = 0
	for _, v := range all {
		l.toQueue(v)
	}
	return all
}

// drainClaimed takes everything out that came from the queue.
func (l *lane) drainClaimed() []*delivery.Delivery {
	all := l.claimed.drain()
	for _, s := range l.sequences {
		all = append(all, s.claimed.drain()...)
		l.touch(s)
	}
	l.nClaimed, l.nFailed = 0, 0
	return all
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
			l.takeTheQueue()
			l.open, l.probing = true, false
			l.openUntil = now.Add(l.cooldown)
			return true
		}
	}
	return false
}

// takeTheQueue sends new deliveries through the queue.
func (l *lane) takeTheQueue() {
	l.viaQueue = true
	l.behind[l] = struct{}{}
}

// catchesUp lets the claimer forget a lane whose deliveries need not take the way through the queue any more.
func (l *lane) catchesUp() {
	if !l.viaQueue && !l.backlog {
		delete(l.behind, l)
	}
}

// falters reports that the lane's last attempts have all failed. Its deliveries then wait in the queue and not
// in memory, where everything behind them waits to be recorded: even before the circuit opens, a dead receiver
// must not hold back the stream.
func (l *lane) falters() bool { return l.failures >= circuitFailures }

// rests reports that a faltering lane has done what it took, and sets how long it takes nothing.
func (l *lane) rests(now time.Time) bool {
	if !l.falters() || l.open || l.inFlight+l.nClaimed > 0 {
		return false
	}
	l.restUntil = now.Add(falteringRest)
	return true
}

// ahead is how many claimed deliveries the lane may have at a time: those in flight and as many that are ready
// to follow, or what its rate lets it send soon.
func (l *lane) ahead() int {
	most := 2 * l.settings.MaxInFlight * l.unit()
	if l.settings.Ordering == delivery.OrderKey || l.settings.Ordering == delivery.OrderStrict {
		most = max(most, orderedAhead)
	}
	if limit := limitOf(l.settings); limit > 0 {
		most = min(most, max(1, int(limit*rateAhead))*l.unit())
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
	case l.open && (now.Before(l.openUntil) || l.inFlight+l.nClaimed > 0):
		return 0
	case l.open:
		return l.unit()
	}
	most := l.ahead()
	if l.falters() {
		if now.Before(l.restUntil) {
			return 0
		}
		most = min(most, max(falteringAppetite, l.unit()))
	}
	return max(0, most-l.carried-l.nClaimed)
}

// claim takes a delivery from the queue.
func (l *lane) claim(v *delivery.Delivery) {
	l.nClaimed++
	if company(v) != uuid.Nil {
		l.nFailed++
	}
	if v.Sequence == "" {
		l.claimed.push(v)
		return
	}
	s := l.sequence(v.Sequence)
	s.claimed.push(v)
	l.touch(s)
}

// unclaim accounts for a claimed delivery that waits no longer.
func (l *lane) unclaim(v *delivery.Delivery) {
	l.nClaimed--
	if company(v) != uuid.Nil {
		l.nFailed--
	}
}

// closedTo reports that the circuit has opened since a claim, and all but a probe must stay in the queue: what waited
// here would keep the lane from asking for one.
func (l *lane) closedTo(now time.Time) bool {
	return l.open && (l.nClaimed >= l.unit() || l.nClaimed == 0 && l.appetite(now) == 0)
}

// withdraw takes a first attempt out and reports whether it was waiting.
func (l *lane) withdraw(v *delivery.Delivery) bool {
	if v.Sequence == "" {
		return l.fresh.remove(v)
	}
	s := l.sequences[v.Sequence]
	return s != nil && s.fresh.remove(v)
}

func (l *lane) stopTimers() {
	for _, t := range []*time.Timer{l.timer, l.fill} {
		if t != nil {
			t.Stop()
		}
	}
}
