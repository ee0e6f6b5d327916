package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/time/rate"

	"github.com/walhook/walhook/outbox"
)

// clinicEvent is an event of the sample application, with what the receivers select by.
type clinicEvent struct {
	outbox.Event
	department string
	cents      int  // amount
	emit       bool // published with outbox.Emit, leaving no row
}

// family reports whether the type begins with one of the names.
func (e clinicEvent) family(names ...string) bool {
	family, _, _ := strings.Cut(e.Type, ".")
	for _, name := range names {
		if family == name {
			return true
		}
	}
	return false
}

// transaction is what the application does at a time, and how it ends.
type transaction struct {
	what   string
	events []clinicEvent
	undone []clinicEvent // published behind a savepoint, to which the application then returns
	rolled bool          // the whole transaction is rolled back
	batch  bool          // an import: published with outbox.PublishBatch
}

// clinic is the sample application. Its day is made up from a fixed seed.
type clinic struct {
	conn      *pgx.Conn
	options   demoOptions
	receivers []*demoReceiver
	ledger    *demoLedger
	say       *narrator
	random    *rand.Rand
	count     int // transactions so far
	patients  int
}

// openClinic connects and makes the application's own table.
func openClinic(ctx context.Context, url string, o demoOptions, receivers []*demoReceiver, ledger *demoLedger, say *narrator) (*clinic, error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("connect the sample application: %w", err)
	}
	c := &clinic{conn: conn, options: o, receivers: receivers, ledger: ledger, say: say, random: rand.New(rand.NewPCG(1, 2))}
	_, err = conn.Exec(ctx, `CREATE SCHEMA clinic
		CREATE TABLE journal (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, entry text NOT NULL, at timestamptz NOT NULL DEFAULT now())`)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make the sample application's table: %w", err), c.close())
	}
	return c, nil
}

func (c *clinic) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return c.conn.Close(ctx)
}

// work goes through the day until ctx ends or enough events are committed. A transaction that has begun is
// brought to its end, because the ledger must know which.
func (c *clinic) work(ctx context.Context) error {
	limit := rate.Inf
	if c.options.rate > 0 {
		limit = rate.Limit(c.options.rate)
	}
	pace := rate.NewLimiter(limit, 10)
	for c.options.events == 0 || c.ledger.events() < c.options.events {
		t := c.next()
		if n := len(t.events); !t.batch {
			if err := pace.WaitN(ctx, n); err != nil {
				return errors.Join(ctx.Err(), err)
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := c.perform(context.WithoutCancel(ctx), t); err != nil {
			return fmt.Errorf("sample application: %s: %w", t.what, err)
		}
		if c.count == demoReplayAt && c.options.endless() {
			if err := c.replay(context.WithoutCancel(ctx)); err != nil {
				return err
			}
		}
	}
	return nil
}

// perform runs one transaction: the application's own change and the events that report it.
func (c *clinic) perform(ctx context.Context, t transaction) error {
	tx, err := c.conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(ctx) }() // does nothing after Commit
	if _, err := tx.Exec(ctx, "INSERT INTO clinic.journal (entry) VALUES ($1)", t.what); err != nil {
		return err
	}
	ids, err := publishAll(ctx, tx, t)
	if err != nil {
		return err
	}
	if t.rolled {
		c.ledger.rolledBack(c.allDeliveries(ids))
	}
	if err := c.undo(ctx, tx, t.undone); err != nil {
		return err
	}
	if t.rolled {
		c.say.notable("rolled back", "rolled back on purpose: %s (%d events that nobody may get)", t.what, len(t.events))
		return tx.Rollback(ctx)
	}
	due := c.deliveries(t.events, ids)
	c.ledger.announce(due)
	if err := tx.Commit(ctx); err != nil {
		return err
	}
	c.ledger.committed(len(t.events), due)
	if t.batch {
		c.say.line("committed one transaction of %d events: %s", len(t.events), t.what)
	}
	return nil
}

// publishAll publishes the events in their order and returns their ids.
func publishAll(ctx context.Context, tx pgx.Tx, t transaction) ([]uuid.UUID, error) {
	if t.batch {
		plain := make([]outbox.Event, len(t.events))
		for i, e := range t.events {
			plain[i] = e.Event
		}
		return outbox.PublishBatch(ctx, tx, plain)
	}
	ids := make([]uuid.UUID, len(t.events))
	for i, e := range t.events {
		var err error
		if e.emit {
			ids[i], err = outbox.Emit(ctx, tx, e.Event)
		} else {
			ids[i], err = outbox.Publish(ctx, tx, e.Event)
		}
		if err != nil {
			return nil, err
		}
	}
	return ids, nil
}

// undo publishes behind a savepoint and returns to it: these events must vanish although the transaction is
// committed.
func (c *clinic) undo(ctx context.Context, tx pgx.Tx, events []clinicEvent) error {
	if len(events) == 0 {
		return nil
	}
	savepoint, err := tx.Begin(ctx) // pgx's nested transactions are savepoints
	if err != nil {
		return err
	}
	ids, err := publishAll(ctx, savepoint, transaction{events: events})
	if err != nil {
		return err
	}
	c.ledger.rolledBack(c.allDeliveries(ids))
	c.say.notable("savepoint", "rolled back to a savepoint: %s; the rest of the transaction is committed", events[0].Type)
	return savepoint.Rollback(ctx)
}

// deliveries are what the events become.
func (c *clinic) deliveries(events []clinicEvent, ids []uuid.UUID) []uuid.UUID {
	var due []uuid.UUID
	for i, e := range events {
		for _, r := range c.receivers {
			if r.matches(e) {
				due = append(due, deliveryOf(ids[i], r))
			}
		}
	}
	return due
}

// allDeliveries are what the events would become, whether the receivers want them or not.
func (c *clinic) allDeliveries(ids []uuid.UUID) []uuid.UUID {
	var all []uuid.UUID
	for _, id := range ids {
		for _, r := range c.receivers {
			all = append(all, deliveryOf(id, r))
		}
	}
	return all
}

// demoReplayAt is after how many transactions the demo without an end replays what there was.
const demoReplayAt = 60

// replay sends the first receiver everything once more, as somebody would whose data was lost.
func (c *clinic) replay(ctx context.Context) error {
	r := c.receivers[0]
	if _, err := c.conn.Exec(ctx, "SELECT outbox.replay($1, now() - interval '1 minute')", r.subscription); err != nil {
		return fmt.Errorf("replay for %s: %w", r.name, err)
	}
	c.say.line("replayed: %s gets everything of the last minute once more", r.name)
	return nil
}
