package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/walhook/walhook/cmd/localpg"
	"github.com/walhook/walhook/config"
)

// benchDatabase is the throw-away Postgres, set up as walhook init does.
type benchDatabase struct {
	server       *localpg.Server
	url          string
	slot         string
	conn         *pgx.Conn // for questions; has one owner
	subscription uuid.UUID
}

func startDatabase(ctx context.Context) (_ *benchDatabase, err error) {
	server, err := localpg.Start(ctx, localpg.Options{})
	if err != nil {
		return nil, err
	}
	d := &benchDatabase{server: server, url: server.URL("postgres")}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	cfg := config.Default()
	cfg.DatabaseURL, d.slot = config.Secret(d.url), cfg.Slot
	if _, err := setUp(ctx, cfg); err != nil {
		return nil, err
	}
	if d.conn, err = pgx.Connect(ctx, d.url); err != nil {
		return nil, fmt.Errorf("connect to Postgres: %w", err)
	}
	// The first relay would make the partitions; their cost is not a delivery's.
	return d, d.exec(ctx, "SELECT outbox.create_partitions()")
}

func (d *benchDatabase) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if d.conn != nil {
		_ = d.conn.Close(ctx)
	}
	_ = d.server.Close() // it is thrown away, and what hinders that is no result
}

func (d *benchDatabase) exec(ctx context.Context, sql string, args ...any) error {
	if _, err := d.conn.Exec(ctx, sql, args...); err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	return nil
}

// benchAsk reads one value.
func benchAsk[T any](ctx context.Context, d *benchDatabase, sql string, args ...any) (value T, err error) {
	if err := d.conn.QueryRow(ctx, sql, args...).Scan(&value); err != nil {
		return value, fmt.Errorf("%s: %w", sql, err)
	}
	return value, nil
}

func (d *benchDatabase) version(ctx context.Context) (string, error) {
	return benchAsk[string](ctx, d, "SELECT current_setting('server_version')")
}

// subscribe makes the one subscription.
func (d *benchDatabase) subscribe(ctx context.Context, url string, inFlight int) (err error) {
	d.subscription, err = benchAsk[uuid.UUID](ctx, d, `INSERT INTO outbox.subscriptions (name, url, event_types, secret, max_in_flight)
		VALUES ('bench', $1, ARRAY[$2], 'a secret of ordinary length, 40 bytes long', $3) RETURNING id`, url, benchTypes, inFlight)
	return err
}

// batches sets how many events a request carries at most.
func (d *benchDatabase) batches(ctx context.Context, size int) error {
	return d.exec(ctx, "UPDATE outbox.subscriptions SET batch_size = $2, batch_wait = '10 ms' WHERE id = $1", d.subscription, size)
}

// wal is the position up to which WAL was written.
func (d *benchDatabase) wal(ctx context.Context) (string, error) {
	return benchAsk[string](ctx, d, "SELECT pg_current_wal_insert_lsn()::text")
}

// walSince counts the bytes of WAL since a position.
func (d *benchDatabase) walSince(ctx context.Context, lsn string) (int64, error) {
	return benchAsk[int64](ctx, d, "SELECT (pg_current_wal_insert_lsn() - $1::text::pg_lsn)::bigint", lsn)
}

// delivered counts the deliveries that are durably recorded.
func (d *benchDatabase) delivered(ctx context.Context) (int64, error) {
	return benchAsk[int64](ctx, d, "SELECT coalesce(sum(delivered), 0)::bigint FROM outbox.subscription_totals")
}

// makeSlot makes a slot of the benchmark's own and returns where it begins.
func (d *benchDatabase) makeSlot(ctx context.Context, name string) (string, error) {
	return benchAsk[string](ctx, d, "SELECT lsn::text FROM pg_create_logical_replication_slot($1, 'pgoutput')", name)
}

// dropSlot waits until nobody uses the slot: a walsender notices a moment later that its client has gone.
func (d *benchDatabase) dropSlot(ctx context.Context, name string) error {
	err := benchPoll(ctx, "slot "+name+" is free", func() (bool, error) {
		return benchAsk[bool](ctx, d, "SELECT NOT active FROM pg_replication_slots WHERE slot_name = $1", name)
	})
	if err != nil {
		return err
	}
	return d.exec(ctx, "SELECT pg_drop_replication_slot($1)", name)
}

// benchPoll asks until the answer is yes, every 20 ms and for a minute at most.
func benchPoll(ctx context.Context, what string, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("not within a minute"))
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		yes, err := done()
		if yes || err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w", what, context.Cause(ctx))
		}
	}
}

const insertEvent = "INSERT INTO outbox.events (type, payload) VALUES ($1, $2::text::jsonb)"

// load commits n events, each in a transaction of its own, as fast as it can be done: over several
// connections, without waiting for an answer before the next one, and without waiting for the disk. What
// follows finds everything on the disk and nothing left to clean up.
func (d *benchDatabase) load(ctx context.Context, n int) error {
	const connections = 4
	g, loading := errgroup.WithContext(ctx)
	for i := range connections {
		g.Go(func() error { return d.loadPart(loading, n*i/connections, n*(i+1)/connections) })
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("load events: %w", err)
	}
	if err := d.exec(ctx, "VACUUM (ANALYZE) outbox.events"); err != nil {
		return err
	}
	return d.exec(ctx, "CHECKPOINT")
}

func (d *benchDatabase) loadPart(ctx context.Context, from, to int) error {
	conn, err := pgx.Connect(ctx, d.url)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, "SET synchronous_commit = off"); err != nil {
		return err
	}
	if _, err := conn.Prepare(ctx, "insert", insertEvent); err != nil {
		return err
	}
	const chunk = 100
	for ; from < to; from += chunk {
		p := conn.PgConn().StartPipeline(ctx)
		for seq := from; seq < min(from+chunk, to); seq++ {
			p.SendQueryPrepared("insert", [][]byte{[]byte(benchType), []byte(benchPayload(seq, time.Time{}))}, nil, nil)
			p.SendPipelineSync() // ends the transaction
		}
		if err := errors.Join(p.Flush(), p.Close()); err != nil {
			return err
		}
	}
	return nil
}
