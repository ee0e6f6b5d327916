package relay

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/walhook/walhook/relay/record"
)

// look is what the database says of everything that the stream depends on, at about the same moment.
type look struct {
	name       string // of the slot
	server     serverState
	slot       slotState
	checkpoint record.Checkpoint
	known      bool   // there is a checkpoint
	other      string // the slot that the database is relayed through, when it is not this one
	catalog    catalogState
}

// readLook looks at everything. The slot is read before the checkpoint: a relay that works meanwhile moves the
// checkpoint before the slot, so in this order the slot is never seen ahead.
func readLook(ctx context.Context, conn *pgx.Conn, name string) (l look, err error) {
	l.name = name
	if l.server, err = readServer(ctx, conn); err != nil || !l.server.Schema {
		return l, err
	}
	if l.slot, err = readSlot(ctx, conn, name); err != nil {
		return l, err
	}
	l.checkpoint, err = record.Read(ctx, conn, name)
	l.known = err == nil
	if errors.Is(err, record.ErrNoCheckpoint) {
		err = conn.QueryRow(ctx, "SELECT coalesce(min(slot_name), '') FROM outbox.checkpoint").Scan(&l.other)
	}
	if err != nil {
		return l, fmt.Errorf("look at the checkpoint: %w", err)
	}
	l.catalog, err = readCatalog(ctx, conn, l.checkpoint.Catalog)
	l.catalog.slot = name
	return l, err
}

// problems lists everything that keeps the relay from running.
func (l *look) problems() []*Problem {
	all := l.server.problems()
	if !l.server.Schema {
		return append(all, &Problem{Code: CodeSchema, What: "the database has no schema outbox", Remedy: "run walhook init"})
	}
	switch {
	case !l.known && l.other != "":
		return append(all, otherSlot(l.other))
	case !l.known: // walhook init makes the publications as well
		return append(all, &Problem{Code: CodeCheckpoint, What: fmt.Sprintf("replication slot %s was not made by walhook", l.name), Remedy: "run walhook init"})
	}
	if p := l.server.clone(l.checkpoint); p != nil {
		all = append(all, p)
	}
	if p := l.slot.problem(l.name, l.checkpoint); p != nil {
		all = append(all, p)
	}
	return append(all, l.catalog.problems()...)
}

func otherSlot(other string) *Problem {
	return &Problem{Code: CodeOtherSlot, What: "this database is already relayed through slot " + other, Remedy: "run with --slot " + other}
}

// Inspect lists every problem that keeps a relay from running the slot, those that it would recover from by itself
// included. That Postgres cannot be reached is one as well. A healthy database has none.
func Inspect(ctx context.Context, url, slot string) []*Problem {
	conn, err := connect(ctx, url)
	if err != nil {
		return []*Problem{connection(err)}
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	l, err := readLook(ctx, conn, slot)
	if err != nil && l.server.Version == 0 {
		return []*Problem{connection(err)} // nothing is known of it
	}
	if err != nil {
		return append(l.server.problems(), connection(err))
	}
	return l.problems()
}

func connection(err error) *Problem {
	if p := privilege(err); p != nil {
		return p
	}
	return &Problem{Code: CodeConnection, What: "Postgres does not answer", Remedy: "check database_url, the network and whether the server runs", Err: err}
}

// privilege is the Problem that SQLSTATE 42501 stands for, or nil.
func privilege(err error) *Problem {
	if code(err) != "42501" {
		return nil
	}
	return &Problem{Code: CodePrivileges, What: "the role of database_url lacks a privilege", Remedy: "grant it, or use the role that ran walhook init", Err: err}
}

// Check looks for what must be there before a relay can run, and what no waiting brings. An ErrSetup, which is a
// Problem, says what to do.
func (r *Relay) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, r.options.ConnectTimeout, errors.New("check: timed out"))
	defer cancel()
	conn, err := connect(ctx, r.options.URL)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	l, err := readLook(ctx, conn, r.options.Slot)
	if err != nil {
		return err
	}
	for _, p := range l.problems() {
		if p.lasting() {
			return p
		}
	}
	return nil
}

// checkHeld looks at a slot that is held now, so that nobody else can advance it any more.
func checkHeld(ctx context.Context, conn *pgx.Conn, name string) error {
	slot, err := readSlot(ctx, conn, name)
	if err != nil {
		return err
	}
	checkpoint, err := record.Read(ctx, conn, name)
	if err != nil {
		return err
	}
	return errOf(slot.problem(name, checkpoint))
}
