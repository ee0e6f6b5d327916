// Package relay composes the outbox relay: the stream yields committed events, the route finds their
// subscriptions, the lanes deliver, the record transaction makes the result durable together with the
// checkpoint, and only then is Postgres told that the WAL is no longer needed. DESIGN.md explains.
package relay

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/rs/zerolog"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/dispatch"
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
}

// State is what the relay is doing.
type State string

// The states.
const (
	Starting     State = "starting"
	Standby      State = "standby"      // another relay has the slot
	Running      State = "running"      // the stream flows
	Reconnecting State = "reconnecting" // the stream broke, and the queue is still served if Postgres answers; or nothing can be recorded
	Halted       State = "halted"       // the slot cannot continue: somebody must decide; the queue is still served
	Stopped      State = "stopped"
)

// Health is the state and, when it is not a good one, why.
type Health struct {
	State State
	Error string
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
}

// New returns a relay that sends with sender.
func New(o Options, sender Sender, observer Observer, log zerolog.Logger) *Relay {
	r := &Relay{options: o, sender: sender, observer: observer, log: log}
	r.health.Store(&Health{State: Starting})
	return r
}

// Health says what the relay is doing.
func (r *Relay) Health() Health { return r.recording.over(*r.health.Load()) }

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
	if old := r.health.Swap(h); old.State != s || old.Error != h.Error {
		e := r.log.Info()
		if err != nil && s != Standby {
			e = r.log.Warn()
		}
		e.Err(err).Str("slot", r.options.Slot).Msg("relay is " + string(s))
	}
}

// Check looks for what must be there before a relay can run. An ErrSetup says what to do.
func (r *Relay) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, r.options.ConnectTimeout, errors.New("check: timed out"))
	defer cancel()
	conn, err := connect(ctx, r.options.URL)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := checkServer(ctx, conn); err != nil {
		return err
	}
	var schema bool
	if err := conn.QueryRow(ctx, "SELECT to_regclass('outbox.checkpoint') IS NOT NULL").Scan(&schema); err != nil {
		return fmt.Errorf("look for the schema: %w", err)
	}
	if !schema {
		return fmt.Errorf("%w: the database has no schema outbox: run walhook init", ErrSetup)
	}
	checkpoint, slot, err := readBoth(ctx, conn, r.options.Slot)
	if errors.Is(err, record.ErrNoCheckpoint) {
		return fmt.Errorf("%w: replication slot %s was not made by walhook: run walhook init", ErrSetup, r.options.Slot)
	}
	if err != nil {
		return err
	}
	if err := checkAhead(slot, r.options.Slot, checkpoint); err != nil {
		return err
	}
	return r.checkSystem(ctx, checkpoint)
}

// checkSystem refuses another Postgres cluster than the one that the checkpoint was made for.
func (r *Relay) checkSystem(ctx context.Context, c record.Checkpoint) error {
	system, err := stream.Identify(ctx, r.options.URL)
	if err != nil {
		return err
	}
	if system.Identifier != c.System {
		return fmt.Errorf("%w: the checkpoint belongs to the Postgres cluster %s and this is %s: a copy must not send what the original sends; "+
			"if it is meant to, delete the slot's row from outbox.checkpoint, drop the slot and run walhook init", ErrSetup, c.System, system.Identifier)
	}
	return nil
}

// readBoth reads the slot and its checkpoint, and refuses a slot or publications that cannot continue. The slot is
// read first: a relay that works meanwhile moves the checkpoint before the slot, so in this order the slot is never
// seen ahead.
func readBoth(ctx context.Context, conn *pgx.Conn, name string) (record.Checkpoint, slotState, error) {
	slot, err := readSlot(ctx, conn, name)
	if err != nil {
		return record.Checkpoint{}, slot, err
	}
	checkpoint, err := record.Read(ctx, conn, name)
	if err != nil {
		return record.Checkpoint{}, slot, err
	}
	if err := checkSlot(slot, name); err != nil {
		return record.Checkpoint{}, slot, err
	}
	return checkpoint, slot, checkPublications(ctx, conn)
}

// checkSlot refuses a slot that is not there or not ours, or has lost what it should hold.
func checkSlot(s slotState, name string) error {
	switch {
	case !s.Exists:
		return lostSlot(name)
	case s.Foreign != "":
		return foreignSlot(name, s.Foreign)
	case s.WALStatus == "lost":
		return fmt.Errorf("%w: replication slot %s has lost WAL that was not yet delivered (max_slot_wal_keep_size): drop it, delete its row from outbox.checkpoint and run walhook init", ErrSetup, name)
	}
	return nil
}

// checkAhead refuses a slot that stands past the checkpoint: Postgres itself would skip silently.
func checkAhead(s slotState, name string, c record.Checkpoint) error {
	if s.Confirmed > c.Confirmed {
		return fmt.Errorf("%w: replication slot %s stands at %v, past the checkpoint %v: somebody advanced or re-created it, and what lies between would be lost silently; "+
			"to go on without it, delete the slot's row from outbox.checkpoint and run walhook init", ErrSetup, name, s.Confirmed, c.Confirmed)
	}
	return nil
}

// checkHeld is checkAhead for a slot that is held now, so that nobody else can advance it any more.
func checkHeld(ctx context.Context, conn *pgx.Conn, name string) error {
	slot, err := readSlot(ctx, conn, name)
	if err != nil {
		return err
	}
	checkpoint, err := record.Read(ctx, conn, name)
	if err != nil {
		return err
	}
	return checkAhead(slot, name, checkpoint)
}

// Run owns the slot whenever it can and works until ctx ends. Then it stops gracefully: attempts under way
// may end within the grace period, everything is recorded and confirmed, and Run returns nil.
func (r *Relay) Run(ctx context.Context) error {
	defer r.become(Stopped, nil)
	const first, longest = 100 * time.Millisecond, 5 * time.Second
	pause := first
	for ctx.Err() == nil {
		began := time.Now()
		err := r.own(ctx)
		if ctx.Err() != nil {
			return err
		}
		if time.Since(began) > longest {
			pause = first
		}
		switch {
		case inUse(err) || errors.Is(err, record.ErrEpoch):
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

// broken is the state that an error of the stream leads to.
func broken(err error) State {
	if errors.Is(err, ErrSetup) {
		return Halted
	}
	return Reconnecting
}

// inUse reports that another relay has the slot.
func inUse(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "55006"
}

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
		Log: r.log.With().Str("component", "stream").Logger()}
}

func identity(version string) record.Relay {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return record.Relay{Version: version, Host: host, PID: os.Getpid()}
}
