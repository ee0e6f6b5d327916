package relay

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/walhook/walhook/internal/fault"
	"github.com/walhook/walhook/relay/record"
	"github.com/walhook/walhook/relay/stream"
)

// Setup makes the publications, then the slot with its first checkpoint, where they are missing, and
// reports each step that it took. The schema must exist. It may be repeated, also after it was killed half-way.
func Setup(ctx context.Context, url, slot string) (done []string, err error) {
	conn, err := connect(ctx, url)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	server, err := readServer(ctx, conn)
	if err != nil {
		return nil, err
	}
	if err := errOf(principal(server.problems())); err != nil {
		return nil, err
	}
	for _, p := range publications {
		made, err := ensurePublication(ctx, conn, p)
		if err != nil {
			return done, err
		}
		fault.PointIf(made, fault.SetupPublication)
		if made {
			done = append(done, "created publication "+p.name+" for "+p.table)
		}
	}
	catalog, err := readCatalog(ctx, conn, "")
	if err == nil {
		err = errOf(principal(catalog.problems()))
	}
	if err != nil {
		return done, err
	}
	// What is altered from here on is not what the checkpoint says, so that it is noticed.
	made, err := ensureSlot(ctx, conn, url, slot, catalog.fingerprint())
	if made {
		done = append(done, "created replication slot "+slot)
	}
	return done, err
}

// setupLock is the advisory lock of whoever makes the slot: init, or a relay that recovers.
const setupLock = "hashtext('outbox.setup')"

// ensureSlot makes the slot and its checkpoint. A slot of ours without a checkpoint was left by a setup that
// was killed between the two: nothing was ever read from it, so it is made anew. A checkpoint without its slot
// is a lost slot, which is never papered over.
func ensureSlot(ctx context.Context, conn *pgx.Conn, url, slot, catalog string) (bool, error) {
	// One setup at a time.
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock("+setupLock+")"); err != nil {
		return false, fmt.Errorf("lock setup: %w", err)
	}
	var other string
	err := conn.QueryRow(ctx, "SELECT coalesce(min(slot_name), '') FROM outbox.checkpoint WHERE slot_name <> $1", slot).Scan(&other)
	if err != nil {
		return false, fmt.Errorf("look for other slots: %w", err)
	}
	if other != "" {
		return false, otherSlot(other)
	}
	state, err := readSlot(ctx, conn, slot)
	if err != nil {
		return false, err
	}
	checkpoint, err := record.Read(ctx, conn, slot)
	switch {
	case err == nil:
		return false, errOf(state.problem(slot, checkpoint))
	case !errors.Is(err, record.ErrNoCheckpoint):
		return false, err
	case state.Exists:
		err = dropHalfMade(ctx, conn, slot, state)
	default:
		err = claimName(ctx, conn, slot)
	}
	if err == nil {
		err = makeSlot(ctx, conn, url, slot, catalog)
	}
	return err == nil, err
}

// claimName notes, before the slot is made, that its name is ours: the row stays for good. It is the only way
// to know a slot again that a killed setup left behind, since slots carry no mark and are not transactional.
func claimName(ctx context.Context, conn *pgx.Conn, slot string) error {
	me := identity("setup")
	_, err := conn.Exec(ctx, "INSERT INTO outbox.epochs (slot_name, epoch, version, host, pid) VALUES ($1, 0, $2, $3, $4) ON CONFLICT DO NOTHING",
		slot, me.Version, me.Host, me.PID)
	if err != nil {
		return fmt.Errorf("claim the name of slot %s: %w", slot, err)
	}
	fault.Point(fault.SetupClaimed)
	return nil
}

// dropHalfMade drops a slot that has no checkpoint, if it is proven to be ours. Any other may be somebody's,
// who would lose what it holds.
func dropHalfMade(ctx context.Context, conn *pgx.Conn, slot string, state slotState) error {
	if state.Foreign != "" {
		return foreignSlot(slot, state.Foreign)
	}
	var ours bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM outbox.epochs WHERE slot_name = $1)", slot).Scan(&ours); err != nil {
		return fmt.Errorf("look for the maker of slot %s: %w", slot, err)
	}
	switch {
	case !ours:
		return &Problem{Code: CodeSlotForeign, What: fmt.Sprintf("replication slot %s exists and was not made by walhook", slot),
			Remedy: fmt.Sprintf("choose another name with --slot, or, if nobody needs what it holds, run SELECT pg_drop_replication_slot('%s')", slot)}
	case state.Active:
		return &Problem{Code: CodeCheckpoint, What: fmt.Sprintf("replication slot %s has no checkpoint and is in use by process %d of Postgres", slot, state.PID),
			Remedy: "stop the walhook init or run that uses it, then try again"}
	}
	if _, err := conn.Exec(ctx, "SELECT pg_drop_replication_slot($1)", slot); err != nil {
		return fmt.Errorf("drop the half-made slot %s: %w", slot, err)
	}
	fault.Point(fault.SetupDropped)
	return nil
}

// makeSlot creates the slot and writes the checkpoint that belongs to it.
func makeSlot(ctx context.Context, conn *pgx.Conn, url, slot, catalog string) error {
	created, err := stream.CreateSlot(ctx, url, slot)
	if err != nil {
		return privileges(err, "have the REPLICATION attribute")
	}
	fault.Point(fault.SetupSlot)
	defer created.Close(context.WithoutCancel(ctx))
	return record.Begin(ctx, conn, slot, created.Snapshot, created.From, created.System.Identifier, int(created.System.Timeline), catalog)
}

// privileges adds a remedy to SQLSTATE 42501.
func privileges(err error, needed string) error {
	if code(err) == "42501" {
		return &Problem{Code: CodePrivileges, What: "the role of database_url lacks a privilege", Remedy: "it must " + needed, Err: err}
	}
	return err
}

// code is the SQLSTATE of an error of Postgres, or empty.
func code(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}
