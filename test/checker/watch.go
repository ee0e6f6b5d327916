package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/walhook/walhook/internal/fault"
	"github.com/walhook/walhook/test/checker/history"
)

// setUp makes schema, publications and slot, killed at every point of it first.
func (e *episode) setUp(ctx context.Context) error {
	for _, point := range e.setUpPoints() {
		p, err := e.main.start("init", e.environment([]string{"WALHOOK_KILL=" + string(point) + ":1"})...)
		if err != nil {
			return err
		}
		if !p.ended(30 * time.Second) {
			p.kill()
			e.finding(history.Stuck, "init did not end within 30 s: see %s", p.log)
			continue
		}
		if p.killed() {
			e.killed(history.Fault{Class: killPoint, Point: string(point), PID: p.pid(), Begin: time.Now()})
		}
	}
	return e.initialize(ctx)
}

// setUpPoints are none in the self-test, which is about other things.
func (e *episode) setUpPoints() []fault.Kill {
	if e.brief {
		return nil
	}
	return setUpPoints()
}

// initialize runs init, which must succeed whatever was killed before it.
func (e *episode) initialize(ctx context.Context) error {
	p, err := e.main.start("init", e.environment(nil)...)
	if err != nil {
		return err
	}
	if !p.ended(30*time.Second) || p.cmd.ProcessState.ExitCode() != 0 {
		p.kill()
		e.finding(history.Stuck, "init did not succeed: see %s", p.log)
		return fmt.Errorf("init did not succeed: see %s", p.log)
	}
	return ctx.Err()
}

// samplePositions watches that the slot is never ahead of the checkpoint. The slot is read first: both only
// grow, and the checkpoint must grow first.
func (e *episode) samplePositions(ctx context.Context) {
	for ctx.Err() == nil {
		conn, err := pgx.Connect(ctx, e.url)
		if err == nil {
			err = e.sample(ctx, conn)
			_ = conn.Close(context.WithoutCancel(ctx))
		}
		if err != nil {
			wait(ctx, 100*time.Millisecond) // Postgres is being restarted
		}
	}
}

func (e *episode) sample(ctx context.Context, conn *pgx.Conn) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	said := "" // once is enough for each
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		confirmed, err := position(ctx, conn, "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = '"+slot+"'")
		if err != nil {
			return err
		}
		checkpoint, err := position(ctx, conn, "SELECT confirmed_lsn::text FROM outbox.checkpoint")
		if err != nil {
			return err
		}
		if flaw := e.flaw(confirmed, checkpoint); flaw != said {
			if said = flaw; flaw != "" {
				e.finding(history.Position, "%s", flaw)
			}
		}
	}
}

// flaw is what is wrong with where slot and checkpoint stand. WAL records begin and end at multiples of 8: a
// position between them lies inside of the next record, which Postgres skips if that is a commit.
func (e *episode) flaw(confirmed, checkpoint history.LSN) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.samples++
	switch {
	case e.slotLost || checkpoint == 0:
		return ""
	case confirmed > checkpoint:
		return fmt.Sprintf("the slot stands at %v, past the checkpoint %v", confirmed, checkpoint)
	case confirmed%8 != 0 || checkpoint%8 != 0:
		return fmt.Sprintf("slot %v or checkpoint %v is no place where a WAL record begins", confirmed, checkpoint)
	}
	return ""
}

// position reads one LSN; 0 when there is none.
func position(ctx context.Context, conn *pgx.Conn, query string) (history.LSN, error) {
	var text *string
	err := conn.QueryRow(ctx, query).Scan(&text)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && text == nil {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return history.ParseLSN(*text)
}

func (e *episode) pauseSampling(paused bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.slotLost = paused
}

// awaitNoRelay waits until Postgres has noticed the end of all relays: what a dead one has sent may still commit.
func (e *episode) awaitNoRelay(ctx context.Context) {
	n := 1
	for deadline := time.Now().Add(20 * time.Second); n > 0 && time.Now().Before(deadline); wait(ctx, 2*time.Millisecond) {
		err := e.retry(ctx, func() error {
			return e.db.QueryRow(ctx, "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND datname = $2", role, e.name).Scan(&n)
		})
		if err != nil {
			return
		}
	}
	if n > 0 && ctx.Err() == nil {
		e.finding(history.Stuck, "%d sessions of dead relays are left after 20 s", n)
	}
}

// snapshot notes what the tables hold, if no relay runs.
func (e *episode) snapshot(ctx context.Context) error {
	if e.a.running() || e.b.running() {
		return nil
	}
	e.awaitNoRelay(ctx)
	s := history.Snapshot{}
	err := e.retry(ctx, func() error {
		return pgx.BeginTxFunc(ctx, e.db, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error { return e.readSnapshot(ctx, tx, &s) })
	})
	if err != nil {
		return fmt.Errorf("take a snapshot: %w", err)
	}
	s.At = time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.h.Snapshots = append(e.h.Snapshots, s)
	return nil
}

func (e *episode) readSnapshot(ctx context.Context, tx pgx.Tx, s *history.Snapshot) error {
	var confirmed, at string
	err := tx.QueryRow(ctx, `SELECT c.confirmed_lsn::text, coalesce(s.confirmed_flush_lsn, '0/0')::text FROM outbox.checkpoint c
		LEFT JOIN pg_replication_slots s ON s.slot_name = c.slot_name`).Scan(&confirmed, &at)
	if err != nil {
		return err
	}
	if s.Confirmed, err = history.ParseLSN(confirmed); err != nil {
		return err
	}
	if s.Slot, err = history.ParseLSN(at); err != nil {
		return err
	}
	if s.Delivered, err = rows(ctx, tx, "SELECT DISTINCT delivery_id, subscription_id, event_id, 0 FROM outbox.attempts WHERE error IS NULL"); err != nil {
		return err
	}
	s.Delivered = e.news(s.Delivered)
	if s.Pending, err = rows(ctx, tx, "SELECT id, subscription_id, event_id, attempts FROM outbox.deliveries"); err != nil {
		return err
	}
	if s.Dead, err = rows(ctx, tx, "SELECT id, subscription_id, event_id, attempts FROM outbox.dead_letters"); err != nil {
		return err
	}
	s.Stranded, err = rows(ctx, tx, `SELECT id, subscription_id, event_id, attempts FROM outbox.deliveries d WHERE next_attempt_at = 'infinity'
		AND NOT EXISTS (SELECT FROM outbox.deliveries e WHERE e.subscription_id = d.subscription_id AND e.sequence = d.sequence
			AND (e.commit_lsn, e.commit_index) < (d.commit_lsn, d.commit_index))`)
	return err
}

func rows(ctx context.Context, tx pgx.Tx, query string) ([]history.Row, error) {
	all, err := tx.Query(ctx, query)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(all, pgx.RowToStructByPos[history.Row])
}

// news leaves out what an earlier snapshot had.
func (e *episode) news(all []history.Row) []history.Row {
	if e.delivered == nil {
		e.delivered = map[uuid.UUID]bool{}
	}
	var fresh []history.Row
	for _, r := range all {
		if !e.delivered[r.ID] {
			e.delivered[r.ID] = true
			fresh = append(fresh, r)
		}
	}
	return fresh
}

// lookForEnds finds relays that ended without being told to.
func (e *episode) lookForEnds() {
	for _, p := range append(slices.Clone(e.a.all), e.b.all...) {
		if p.unexpected() {
			e.finding(history.Stuck, "relay %d ended by itself (%s): see %s", p.pid(), p.cmd.ProcessState, p.log)
		}
	}
}

// lookForRepeats finds what was recorded twice: a success that was durable and was sent again all the same, which no
// crash explains.
func (e *episode) lookForRepeats(ctx context.Context) error {
	for what, query := range map[string]string{
		"has more than one success":     "SELECT delivery_id FROM outbox.attempts WHERE error IS NULL AND delivery_id <> ALL($1) GROUP BY 1 HAVING count(*) > 1 LIMIT 20",
		"has an attempt more than once": "SELECT delivery_id FROM outbox.attempts WHERE cardinality($1::uuid[]) >= 0 GROUP BY delivery_id, attempt HAVING count(*) > 1 LIMIT 20",
	} {
		found, err := e.db.Query(ctx, query, e.askedAgain())
		if err != nil {
			return err
		}
		ids, err := pgx.CollectRows(found, pgx.RowTo[uuid.UUID])
		if err != nil {
			return fmt.Errorf("look for what was recorded twice: %w", err)
		}
		for _, id := range ids {
			e.finding(history.Duplicate, "delivery %s %s in outbox.attempts", id, what)
		}
	}
	return nil
}

// askedAgain are the deliveries that an operator sent again.
func (e *episode) askedAgain() []uuid.UUID {
	all := []uuid.UUID{}
	for _, f := range e.h.Faults {
		all = append(all, f.Deliveries...)
	}
	return all
}

// look keeps what the last relay and the commands say, to be searched for secrets.
func (e *episode) look(ctx context.Context) {
	for _, path := range []string{"/metrics", "/readyz", "/healthz"} {
		body, err := e.main.now.get(ctx, path)
		if err != nil {
			e.finding(history.Stuck, "GET %s of a relay at work: %v", path, err)
			continue
		}
		_ = os.WriteFile(filepath.Join(e.dir, "page"+strings.ReplaceAll(path, "/", "-")+".txt"), []byte(body), 0o644)
	}
	cmd := exec.CommandContext(ctx, e.run.program, "status", "--json")
	cmd.Env = append(inherited(), "WALHOOK_DATABASE_URL="+e.main.database)
	output, err := cmd.CombinedOutput()
	if err != nil {
		e.finding(history.Stuck, "walhook status: %v: %s", err, output)
	}
	_ = os.WriteFile(filepath.Join(e.dir, "status.json"), output, 0o644)
}

// lookForSecrets searches everything that was said, and what the tables say of errors, for secrets.
func (e *episode) lookForSecrets(ctx context.Context) error {
	secrets := append(e.load.Secrets(), password)
	var said string
	err := e.db.QueryRow(ctx, `SELECT coalesce(string_agg(t, E'\n'), '') FROM (
		SELECT DISTINCT coalesce(error, '') || ' ' || coalesce(response_body, '') FROM outbox.attempts
		UNION SELECT coalesce(last_error, '') FROM outbox.deliveries UNION SELECT coalesce(last_error, '') FROM outbox.dead_letters
		UNION SELECT coalesce(status_reason, '') FROM outbox.subscriptions UNION SELECT headers::text || url FROM outbox.subscription_revisions) AS all_texts(t)`).Scan(&said)
	if err != nil {
		return fmt.Errorf("read what the tables say: %w", err)
	}
	e.searchFor(secrets, "the tables", []byte(said))
	files, err := filepath.Glob(filepath.Join(e.dir, "*"))
	if err != nil {
		return err
	}
	for _, name := range files {
		if filepath.Base(name) == "receiver.log" {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		e.searchFor(secrets, name, text)
		for _, cry := range []string{"panic: ", "fatal error: ", "DATA RACE"} {
			if strings.HasSuffix(name, ".log") && bytes.Contains(text, []byte(cry)) {
				e.finding(history.Stuck, "%s says %q", name, cry)
			}
		}
	}
	return nil
}

func (e *episode) searchFor(secrets []string, where string, text []byte) {
	if !bytes.Contains(text, []byte("canary")) {
		return
	}
	for _, secret := range secrets {
		if secret != "" && bytes.Contains(text, []byte(secret)) {
			e.finding(history.Secret, "%s holds the secret %s…", where, secret[:min(len(secret), 12)])
		}
	}
}
