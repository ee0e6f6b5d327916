// Package relay composes the outbox relay: the stream yields committed events, the route finds their
// subscriptions, the lanes deliver, the record transaction makes the result durable together with the
// checkpoint, and only then is Postgres told that the WAL is no longer needed. DESIGN.md explains.
package relay

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/rs/zerolog"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/dispatch"
	"github.com/walhook/walhook/relay/queue"
	"github.com/walhook/walhook/relay/record"
	"github.com/walhook/walhook/relay/stream"
)

// Options of a Relay. All durations and limits must be set.
type Options struct {
	URL     string // connection string, direct: a pooler cannot carry replication
	Slot    string
	Version string

	ConnectTimeout time.Duration // for opening the stream
	StatusInterval time.Duration // at most between two messages to the server

	RecordInterval     time.Duration // from the first thing to record until it is recorded
	MaxUnrecorded      int           // deliveries in memory that are not recorded
	MaxUnrecordedBytes int           // of their events; as much again of those claimed from the queue
	SpillAfter         time.Duration // age at which an unfinished delivery becomes a queue row

	MaxSenders  int           // attempts at a time, over all subscriptions
	GracePeriod time.Duration // for attempts under way when the relay stops
	LeaseMargin time.Duration // of a claimed delivery, beyond its timeout
	Secrets     Secrets       // reads stored secrets; nil takes them as they are
	PollQueue   time.Duration // at most between two looks at the queue
	ReplayRate  int           // deliveries a second that replays may add to the queue; 0: 500

	HaltOnGap bool          // wait for somebody to decide instead of recovering what is missing from outbox.events
	Heartbeat time.Duration // between heartbeats through the WAL; 0: none
}

// Secrets turns what is stored as a subscription's secret into the secret: it may be a reference, or encrypted.
type Secrets interface {
	Resolve(stored string, subscription uuid.UUID) (delivery.Secret, error)
}

// Sender makes attempts and handshakes.
type Sender interface {
	dispatch.Sender
	Verifier
}

// Observer is told what happens, for metrics. Its methods are called on hot paths and must not block.
type Observer interface {
	Event()
	Attempt(s *delivery.Settings, o *delivery.Outcome, next delivery.State, sinceCommit time.Duration)
	Recorded(attempts int, took time.Duration)
	Heartbeat(roundTrip time.Duration) // from the heartbeat's commit being asked for until the stream yields it
}

// State is what the relay is doing.
type State string

// The states.
const (
	Starting     State = "starting"
	Standby      State = "standby"      // another relay has the slot
	Running      State = "running"      // the stream flows
	Reconnecting State = "reconnecting" // the stream broke, and the queue is still served if Postgres answers; or nothing can be recorded
	Recovering   State = "recovering"   // the stream has a gap, which is being filled from outbox.events
	Halted       State = "halted"       // the slot cannot continue: somebody must decide; the queue is still served
	Stopping     State = "stopping"     // asked to stop: what is under way may end
	Stopped      State = "stopped"
)

// Health is the state and, when it is not a good one, why.
type Health struct {
	State State
	Error string

	Code   Code   // of the Problem, when it is one,
	Remedy string // and what mends it
}

// Ready reports whether the relay does its work or stands by for it.
func (h Health) Ready() bool { return h.State == Running || h.State == Standby }

// Relay runs one slot. Make it with New.
type Relay struct {
	options  Options
	sender   Sender
	observer Observer
	log      zerolog.Logger
	health   atomic.Pointer[Health] // but for what recording has to say
	lanes    atomic.Pointer[dispatch.Dispatcher]

	recording trouble
	pulse     pulse
	gapSince  time.Time // Run's and the pump's, one after the other: when the gap that is being recovered was found
	unreads   int       // Run's: how often the old slot could not be read, for what may pass
	retry     retry     // of a recovery that failed, also by a relay that stands by; whose gapSince is
}

// New returns a relay that sends with sender.
func New(o Options, sender Sender, observer Observer, log zerolog.Logger) *Relay {
	r := &Relay{options: o, sender: sender, observer: observer, log: log}
	r.health.Store(&Health{State: Starting})
	return r
}

// Health says what the relay is doing.
func (r *Relay) Health() Health { return r.pulse.over(r.recording.over(*r.health.Load()), time.Now()) }

// Lanes counts subscriptions and attempts under way.
func (r *Relay) Lanes() dispatch.Counts {
	if d := r.lanes.Load(); d != nil {
		return d.Counts()
	}
	return dispatch.Counts{}
}

// become notes a new state and logs it once.
func (r *Relay) become(s State, err error) {
	h := &Health{State: s}
	if err != nil {
		h.Error = err.Error()
	}
	p := problemOf(err)
	if p != nil {
		h.Code, h.Remedy = p.Code, p.Remedy
	}
	if old := r.health.Swap(h); old.State != s || old.Error != h.Error {
		e := r.log.Info()
		switch {
		case s == Halted:
			e = r.log.Error()
		case err != nil && s != Standby:
			e = r.log.Warn()
		}
		if p != nil {
			e = e.Str("code", string(p.Code)).Str("remedy", p.Remedy)
		}
		e.Err(err).Str("slot", r.options.Slot).Msg("relay is " + string(s))
	}
}

// Run owns the slot whenever it can and works until ctx ends. Then it stops gracefully: attempts under way
// may end within the grace period, everything is recorded and confirmed, and Run returns nil.
func (r *Relay) Run(ctx context.Context) error {
	noted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(noted)
		r.become(Stopping, nil)
	})
	defer func() {
		if !stop() {
			<-noted
		}
		r.become(Stopped, nil)
	}()
	const first, longest = 100 * time.Millisecond, 5 * time.Second
	pause := first
	for ctx.Err() == nil {
		began := time.Now()
		err := r.turn(ctx)
		if ctx.Err() != nil {
			return err
		}
		if time.Since(began) > longest {
			pause = first
		}
		switch {
		case err == nil:
			continue // a gap is filled, or the history has branched: what is in the database counts
		case inUse(err) || errors.Is(err, record.ErrEpoch) || errors.Is(err, queue.ErrEpoch) || errors.Is(err, errBusy):
			r.become(Standby, err)
			pause = time.Second
		default:
			r.become(broken(err), err)
		}
		wait(ctx, pause)
		pause = min(2*pause, longest)
	}
	return nil
}

// turn owns the slot for as long as it can. A gap in the stream ends that and is filled; what only somebody else can
// mend leaves the queue, which is served without the stream. It returns nil when the next turn may begin at once.
func (r *Relay) turn(ctx context.Context) error {
	err := r.own(ctx, nil)
	if ctx.Err() != nil {
		return err
	}
	if p := problemOf(err); p != nil && r.fills(p) && time.Now().After(r.retry.at) {
		r.become(Recovering, p)
		if err = r.refill(ctx, p); err != nil && ctx.Err() != nil {
			return nil // nothing is lost: the next relay begins again
		}
		if failed := problemOf(err); failed != nil {
			r.retry.failed(failed.Code, time.Now())
		}
	}
	if p := problemOf(err); p != nil && p.waits() {
		err = r.own(ctx, p)
	}
	if errors.Is(err, record.ErrMoved) {
		r.log.Warn().Err(err).Msg("the epoch ends")
		return nil
	}
	return err
}

// fills reports whether the relay recovers from the problem by itself.
func (r *Relay) fills(p *Problem) bool { return p.Gap && !r.options.HaltOnGap }

// errBusy means that another relay does what this one would do.
var errBusy = errors.New("another relay is at it")

// broken is the state that an error of the stream leads to.
func broken(err error) State {
	if errors.Is(err, ErrSetup) {
		return Halted
	}
	return Reconnecting
}

// inUse reports that another relay has the slot.
func inUse(err error) bool { return code(err) == "55006" }

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func (r *Relay) stream() stream.Options {
	return stream.Options{URL: r.options.URL, Slot: r.options.Slot, Publications: []string{EventsPublication, ConfigPublication},
		ConnectTimeout: r.options.ConnectTimeout, StatusInterval: r.options.StatusInterval,
		Log: r.log.With().Str("part", "stream").Logger()}
}

func identity(version string) record.Relay {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return record.Relay{Version: version, Host: host, PID: os.Getpid()}
}
