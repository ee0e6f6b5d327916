package record

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/rs/zerolog"

	"github.com/walhook/walhook/internal/fault"
	"github.com/walhook/walhook/relay/delivery"
)

// ErrEpoch means that another relay has taken the slot over: nothing may be recorded any more.
var ErrEpoch = errors.New("another relay has taken over: its epoch stands in outbox.checkpoint")

// ErrMoved means that the connection leads to another server than the epoch began on: one whose history has branched
// off (a promoted standby), or another cluster.
var ErrMoved = errors.New("another timeline or cluster: everything in memory is derived again")

// lease of a queue row whose first attempt is under way: longer than any attempt lasts.
const underWayLease = 330 * time.Second

// Options of a Store.
type Options struct {
	Slot  string
	Owner string // of leases: names this relay and its epoch
	Epoch int
	Batch int64 // number of the last batch that the checkpoint has
	// Timeline and System are those of the server that the epoch began on: with 0 and "" they may be any.
	Timeline int
	System   string
	Log      zerolog.Logger

	// Trouble is told of every failure to record, and with nil that recording works again. It may be nil, and
	// must not block.
	Trouble func(error)
	Now     func() time.Time // the clock that batches are stamped with; time.Now when nil
}

// Store writes batches, each in one transaction, over a connection of its own. It has one owner.
type Store struct {
	options Options
	connect func(context.Context) (*pgx.Conn, error)
	conn    *pgx.Conn
	batch   int64
	rows    copyRows
	ahead   time.Duration // of the database's clock, which says when rows are due, before ours
	trouble trouble
}

// NewStore returns a store that opens its connection when it first needs one. connect must give sessions
// with synchronous_commit on and without time limits.
func NewStore(o Options, connect func(context.Context) (*pgx.Conn, error)) *Store {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Store{options: o, connect: connect, batch: o.Batch}
}

// Close ends the connection.
func (s *Store) Close() {
	if s.conn != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_ = s.conn.Close(ctx)
		s.conn = nil
	}
}

// Record makes the batch durable, trying until it is: it returns nil then and only then. ErrEpoch, ErrMoved
// and the end of ctx are the other ways out. A COMMIT whose reply was lost is looked up in the checkpoint, so that
// no batch is written twice.
func (s *Store) Record(ctx context.Context, b *Batch) error {
	const first, longest = 50 * time.Millisecond, 2 * time.Second
	clean, unsure := false, false
	for pause := first; ; pause = min(2*pause, longest) {
		err := s.try(ctx, b, clean, unsure)
		switch {
		case err == nil:
			s.batch++
			s.recovered()
			return nil
		case errors.Is(err, ErrEpoch), errors.Is(err, ErrMoved):
			return err
		case ctx.Err() != nil:
			return fmt.Errorf("record: %w", context.Cause(ctx))
		}
		s.failed(err)
		s.Close()
		unsure = true
		// A row that stands in the way was left by outbox.redeliver or by hand: the batch knows better. Or an
		// application gave an event's id away twice.
		if !clean && code(err) == "23505" {
			clean = true
			b.dropRepeats()
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

func (s *Store) try(ctx context.Context, b *Batch, clean, unsure bool) error {
	if s.conn == nil {
		conn, err := s.connect(ctx)
		if err != nil {
			return err
		}
		s.conn = conn
		if err := s.greet(ctx); err != nil {
			return err
		}
	}
	if unsure {
		if done, err := s.landed(ctx); done || err != nil {
			return err
		}
	}
	if err := s.begin(ctx, b, clean); err != nil {
		return err
	}
	fault.Point(fault.RecordBegan)
	if err := s.copyAll(ctx, b); err != nil {
		return err
	}
	return s.finish(ctx, b)
}

// landed reports whether the batch that is being tried is the checkpoint's already.
func (s *Store) landed(ctx context.Context) (bool, error) {
	if fault.Bug(fault.UnknownCommitDropped) {
		return true, nil
	}
	var epoch int
	var batch int64
	err := s.conn.QueryRow(ctx, "SELECT epoch, batch FROM outbox.checkpoint WHERE slot_name = $1", s.options.Slot).Scan(&epoch, &batch)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && epoch != s.options.Epoch && !fault.Bug(fault.EpochIgnored) {
		return false, ErrEpoch
	}
	if err != nil {
		return false, fmt.Errorf("look the last batch up: %w", err)
	}
	return batch == s.batch+1, nil
}

// begin opens the transaction and moves the checkpoint, if the epoch still stands. The checkpoint never
// goes backwards.
func (s *Store) begin(ctx context.Context, b *Batch, clean bool) error {
	var q pgx.Batch
	q.Queue("BEGIN")
	var lsn, confirm any // null leaves the column
	var index uint64
	var through *time.Time
	var xid *string
	if b.XID != 0 {
		text := strconv.FormatUint(b.XID, 10)
		xid = &text
	}
	if b.Position != (delivery.Position{}) {
		lsn, index = b.Position.LSN.String(), b.Position.Index
	}
	if b.Confirm != 0 {
		confirm = b.Confirm.String()
	}
	if !b.Through.IsZero() {
		through = &b.Through
	}
	move := `UPDATE outbox.checkpoint SET
		lsn = coalesce($3::text::pg_lsn, lsn), index = CASE WHEN $3::text IS NULL THEN index ELSE $4 END,
		confirmed_lsn = greatest(confirmed_lsn, $5::text::pg_lsn),
		recorded_through = greatest(recorded_through, $6::timestamptz),
		recorded_xid = greatest(recorded_xid, $8::text::xid8),
		batch = $7, updated_at = now()
		WHERE slot_name = $1 AND epoch = $2`
	if fault.Bug(fault.EpochIgnored) {
		move = strings.Replace(move, "epoch = $2", "$2::int > 0", 1)
	}
	q.Queue(move, s.options.Slot, s.options.Epoch, lsn, int64(index), confirm, through, s.batch+1, xid)
	if clean {
		ids := make([]uuid.UUID, 0, len(b.Puts)+len(b.Dead))
		for i := range b.Puts {
			ids = append(ids, b.Puts[i].Delivery.ID)
		}
		q.Queue("DELETE FROM outbox.deliveries WHERE id = ANY($1)", ids)
		ids = ids[:0:0]
		for i := range b.Dead {
			ids = append(ids, b.Dead[i].Delivery.ID)
		}
		q.Queue("DELETE FROM outbox.dead_letters WHERE id = ANY($1)", ids)
		events := make([]uuid.UUID, 0, len(b.Events))
		for _, e := range b.Events {
			events = append(events, e.ID)
		}
		q.Queue("DELETE FROM outbox.emitted_events WHERE id = ANY($1)", events)
	}
	results := s.conn.SendBatch(ctx, &q)
	defer func() { _ = results.Close() }()
	if _, err := results.Exec(); err != nil {
		return fmt.Errorf("begin record transaction: %w", err)
	}
	tag, err := results.Exec()
	if err != nil {
		return fmt.Errorf("move checkpoint: %w", err)
	}
	if tag.RowsAffected() != 1 {
		return ErrEpoch
	}
	if err := results.Close(); err != nil {
		return fmt.Errorf("move checkpoint: %w", err)
	}
	return nil
}

// copyAll writes the new rows.
func (s *Store) copyAll(ctx context.Context, b *Batch) error {
	if err := s.copy(ctx, attemptColumns, len(b.Attempts), func(i int) { s.attempt(&b.Attempts[i]) }); err != nil {
		return fmt.Errorf("record attempts: %w", err)
	}
	fault.PointIf(len(b.Attempts) > 0, fault.RecordAttempts)
	if err := s.copy(ctx, deliveryColumns, len(b.Puts), func(i int) { s.put(&b.Puts[i]) }); err != nil {
		return fmt.Errorf("record waiting deliveries: %w", err)
	}
	fault.PointIf(len(b.Puts) > 0, fault.RecordDeliveries)
	if err := s.copy(ctx, deadColumns, len(b.Dead), func(i int) { s.dead(&b.Dead[i]) }); err != nil {
		return fmt.Errorf("record dead letters: %w", err)
	}
	fault.PointIf(len(b.Dead) > 0, fault.RecordDeadLetters)
	if err := s.copy(ctx, emittedColumns, len(b.Events), func(i int) { s.emitted(b.Events[i]) }); err != nil {
		return fmt.Errorf("record emitted events: %w", err)
	}
	fault.PointIf(len(b.Events) > 0, fault.RecordEmitted)
	return nil
}

func (s *Store) copy(ctx context.Context, statement string, n int, row func(int)) error {
	if n == 0 {
		return nil
	}
	reader := newCopyReader(&s.rows, n, row)
	_, err := s.conn.PgConn().CopyFrom(ctx, reader, statement)
	reader.close()
	if cap(s.rows.b) > 4<<20 {
		s.rows.b = nil // a batch of huge payloads is rare
	}
	return err
}

const attemptColumns = `COPY outbox.attempts (attempted_at, committed_at, delivery_id, event_id, subscription_id,
	revision, epoch, duration_us, attempt, status, error, response_body) FROM STDIN BINARY`

func (s *Store) attempt(a *Attempt) {
	d, r := a.Delivery, &s.rows
	r.row(12)
	r.time(a.Outcome.StartedAt)
	r.time(d.Event.CommittedAt)
	r.uuid(d.ID)
	r.uuid(d.Event.ID)
	r.uuid(d.SubscriptionID)
	r.int32(int(a.Revision))
	r.int32(s.options.Epoch)
	r.int32(int(a.Outcome.Duration.Microseconds()))
	r.int16(a.Number)
	if a.Outcome.Status == 0 {
		r.null()
	} else {
		r.int16(a.Outcome.Status)
	}
	r.optional(a.Outcome.Error)
	r.optional(a.Outcome.Body)
}

const deliveryColumns = `COPY outbox.deliveries (id, subscription_id, event_id, type, payload, key, tenant, source,
	correlation_id, headers, emitted, created_at, committed_at, commit_lsn, commit_index, attempts,
	last_attempt_at, last_status, last_error, round, sequence, batch, next_attempt_at, lease_owner) FROM STDIN BINARY`

func (s *Store) put(p *Put) {
	s.rows.row(24)
	s.carried(p)
	s.rows.int32(p.round)
	s.rows.optional(p.Delivery.Sequence)
	s.rows.optionalUUID(p.Batch)
	switch {
	case p.UnderWay:
		s.rows.time(p.At.Add(s.ahead + underWayLease))
		s.rows.text(s.options.Owner)
		return
	case p.Held:
		s.rows.infinity()
	default:
		s.rows.time(p.At.Add(s.ahead))
	}
	s.rows.null()
}

const deadColumns = `COPY outbox.dead_letters (id, subscription_id, event_id, type, payload, key, tenant, source,
	correlation_id, headers, emitted, created_at, committed_at, commit_lsn, commit_index, attempts,
	last_attempt_at, last_status, last_error) FROM STDIN BINARY`

func (s *Store) dead(p *Put) {
	s.rows.row(19)
	s.carried(p)
}

// carried writes the columns that queue and dead letters share.
func (s *Store) carried(p *Put) {
	d, e, r := p.Delivery, p.Delivery.Event, &s.rows
	r.uuid(d.ID)
	r.uuid(d.SubscriptionID)
	r.uuid(e.ID)
	r.text(e.Type)
	r.bytes(e.Payload)
	r.optional(e.Key)
	r.text(e.Tenant)
	r.optional(e.Source)
	r.optional(e.CorrelationID)
	r.optional(string(e.Headers))
	r.bool(e.Emitted)
	r.time(e.CreatedAt)
	r.time(e.CommittedAt)
	r.int64(uint64(e.Position.LSN))
	r.int64(e.Position.Index)
	r.int32(p.attempts)
	if p.Last == nil {
		r.null()
		r.null()
		r.null()
		return
	}
	r.time(p.Last.StartedAt)
	if p.Last.Status == 0 {
		r.null()
	} else {
		r.int32(p.Last.Status)
	}
	r.optional(p.Last.Error)
}

const emittedColumns = `COPY outbox.emitted_events (id, type, payload, key, tenant, source, correlation_id, headers,
	created_at) FROM STDIN BINARY`

func (s *Store) emitted(e *delivery.Event) {
	r := &s.rows
	r.row(9)
	r.uuid(e.ID)
	r.text(e.Type)
	r.jsonb(e.Payload)
	r.optional(e.Key)
	r.text(e.Tenant)
	r.optional(e.Source)
	r.optional(e.CorrelationID)
	r.jsonb(e.Headers)
	r.time(e.CreatedAt)
}

func code(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}
