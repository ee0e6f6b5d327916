package relay

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/record"
)

// slotState is what pg_replication_slots says. Slots belong to the whole cluster, whichever database made them.
type slotState struct {
	Exists, Active bool
	PID            int
	WALStatus      string
	Invalidated    string // the reason, which Postgres tells from 17 on
	Confirmed      delivery.LSN
	Foreign        string // what it is instead, when it is not a pgoutput slot of this database
}

// slotQuery reads invalidation_reason as JSON: before Postgres 17 it is simply absent.
const slotQuery = `SELECT active, coalesce(active_pid, 0), coalesce(wal_status, ''), coalesce(to_jsonb(s) ->> 'invalidation_reason', ''),
		coalesce(confirmed_flush_lsn, '0/0')::text,
		CASE WHEN slot_type <> 'logical' THEN 'is a ' || slot_type || ' slot'
			WHEN database <> current_database() THEN 'belongs to database ' || database
			WHEN plugin <> 'pgoutput' THEN 'uses the plugin ' || plugin
			ELSE '' END
	FROM pg_replication_slots s WHERE slot_name = $1`

func readSlot(ctx context.Context, conn *pgx.Conn, slot string) (slotState, error) {
	s := slotState{Exists: true}
	var confirmed string
	err := conn.QueryRow(ctx, slotQuery, slot).Scan(&s.Active, &s.PID, &s.WALStatus, &s.Invalidated, &confirmed, &s.Foreign)
	if errors.Is(err, pgx.ErrNoRows) {
		return slotState{}, nil
	}
	if err != nil {
		return slotState{}, fmt.Errorf("look at slot %s: %w", slot, err)
	}
	if s.Confirmed, err = delivery.ParseLSN(confirmed); err != nil {
		return slotState{}, fmt.Errorf("look at slot %s: %w", slot, err)
	}
	return s, nil
}

// What an operator may decide about a gap.
const fillGap = "run the relay with on_lost_slot: recover, which delivers what is missing from outbox.events"

// skipGap forgets what the slot has delivered, and dropAndSkip also the slot, which cannot be read any further.
func skipGap(slot string) string {
	return fmt.Sprintf("to go on without it, delete the slot's row from outbox.checkpoint and run walhook init (DELETE FROM outbox.checkpoint WHERE slot_name = '%s')", slot)
}

func dropAndSkip(slot string) string {
	return fmt.Sprintf("to go on without it, drop the slot, delete its row from outbox.checkpoint and run walhook init "+
		"(SELECT pg_drop_replication_slot('%[1]s'); DELETE FROM outbox.checkpoint WHERE slot_name = '%[1]s')", slot)
}

// problem says why the stream cannot go on from the checkpoint through this slot: it is gone or not ours, has lost
// what it should hold, or stands past the checkpoint, so that Postgres itself would skip silently.
func (s *slotState) problem(name string, c record.Checkpoint) *Problem {
	switch {
	case !s.Exists:
		return &Problem{Code: CodeSlotMissing, Gap: true, Remedy: fillGap + "; " + skipGap(name),
			What: fmt.Sprintf("replication slot %s is gone although its checkpoint exists: events committed since the checkpoint are in outbox.events but not in any stream", name)}
	case s.Foreign != "":
		p := foreignSlot(name, s.Foreign)
		p.Remedy = s.reclaim(name)
		return p
	case s.WALStatus == "lost" || s.Invalidated != "":
		return &Problem{Code: CodeSlotLost, Gap: true, Remedy: fillGap + "; " + dropAndSkip(name),
			What: fmt.Sprintf("replication slot %s has lost WAL that was not yet delivered (%s)", name, s.cause())}
	case s.Confirmed > c.Confirmed:
		return &Problem{Code: CodeSlotAhead, Gap: true, Remedy: fillGap + "; " + skipGap(name),
			What: fmt.Sprintf("replication slot %s stands at %v, past the checkpoint %v: somebody advanced or re-created it, and what lies between would be lost silently", name, s.Confirmed, c.Confirmed)}
	}
	return nil
}

// cause names the setting that cost the slot its WAL.
func (s *slotState) cause() string {
	switch s.Invalidated {
	case "", "wal_removed":
		return "max_slot_wal_keep_size"
	case "idle_timeout":
		return "idle_replication_slot_timeout"
	}
	return s.Invalidated
}

// reclaim says what becomes of a checkpoint whose slot's name is taken. The slot of another database may be the original's,
// of which this database is a copy: it is nobody's to drop.
func (s *slotState) reclaim(name string) string {
	other := fmt.Sprintf("delete the slot's row from outbox.checkpoint and choose another name with --slot, for walhook init and the relay "+
		"(DELETE FROM outbox.checkpoint WHERE slot_name = '%s'): what is missing is then not delivered", name)
	if strings.HasPrefix(s.Foreign, "belongs to") {
		return "if this database is meant to send as well, " + other
	}
	return fmt.Sprintf("if nobody needs what it holds, run SELECT pg_drop_replication_slot('%s'): the relay then does what on_lost_slot says; otherwise %s", name, other)
}

// foreignSlot refuses a slot that has nothing to do with this database's outbox.
func foreignSlot(slot, what string) *Problem {
	return &Problem{Code: CodeSlotForeign, Remedy: "choose another name with --slot",
		What: fmt.Sprintf("replication slot %s %s, and the names of slots are shared by all databases of a server", slot, what)}
}
