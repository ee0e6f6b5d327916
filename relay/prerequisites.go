package relay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walhook/walhook/relay/delivery"
)

// The publications that the slot decodes. Events are inserts only; of subscriptions every change counts.
const (
	EventsPublication = "walhook_events"
	ConfigPublication = "walhook_config"
)

// published is a publication that must be there.
type published struct{ name, table, publish string }

var publications = []published{
	{EventsPublication, "outbox.events", "insert"},
	{ConfigPublication, "outbox.subscriptions", "insert, update, delete"},
}

// create is the statement that makes the publication. Rows come under the name of the table that the
// application knows, whichever partition holds them.
func (p published) create() string {
	return fmt.Sprintf("CREATE PUBLICATION %s FOR TABLE %s WITH (publish = '%s', publish_via_partition_root = true)", p.name, p.table, p.publish)
}

// publicationsQuery looks at both at once, so that watching them costs one round trip. prqual and prattrs
// exist from Postgres 15 on: as JSON they are simply absent before.
const publicationsQuery = `SELECT p.oid IS NOT NULL, coalesce(p.puballtables OR r.oid IS NOT NULL, false),
	coalesce(p.pubinsert AND (w.inserts OR p.pubupdate AND p.pubdelete), false), coalesce(p.pubviaroot OR t.relkind <> 'p', false),
	to_jsonb(r) ->> 'prqual' IS NOT NULL, to_jsonb(r) ->> 'prattrs' IS NOT NULL
	FROM unnest($1::text[], $2::text[], $3::bool[]) WITH ORDINALITY AS w(name, "table", inserts, i)
	LEFT JOIN pg_class t ON t.oid = to_regclass(w."table")
	LEFT JOIN pg_publication p ON p.pubname = w.name
	LEFT JOIN pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = t.oid
	ORDER BY w.i`

// checkPublications refuses publications that keep something from the stream, with the remedy. Postgres says
// nothing about it: rows that are not published are just not there.
func checkPublications(ctx context.Context, conn *pgx.Conn) error {
	var names, tables []string
	var inserts []bool
	for _, p := range publications {
		names, tables, inserts = append(names, p.name), append(tables, p.table), append(inserts, p.publish == "insert")
	}
	rows, err := conn.Query(ctx, publicationsQuery, names, tables, inserts)
	if err != nil {
		return fmt.Errorf("look at the publications: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[publicationState])
	if err != nil {
		return fmt.Errorf("look at the publications: %w", err)
	}
	for i, p := range publications {
		if err := found[i].check(p); err != nil {
			return err
		}
	}
	return nil
}

// publicationState is what the catalog says of a publication.
type publicationState struct{ Exists, Member, Complete, ViaRoot, Filtered, Columns bool }

// check names what is wrong first, and the statement that mends it.
func (s publicationState) check(p published) error {
	wrong, remedy := "", ""
	switch {
	case !s.Exists:
		wrong = "does not exist"
		remedy = p.create() + " (if the stream still misses it then: drop the slot, delete its row from outbox.checkpoint and run walhook init)"
	case !s.Member:
		wrong, remedy = "lacks table "+p.table, fmt.Sprintf("ALTER PUBLICATION %s ADD TABLE %s", p.name, p.table)
	case !s.Complete:
		wrong, remedy = "does not publish "+p.publish, fmt.Sprintf("ALTER PUBLICATION %s SET (publish = '%s')", p.name, p.publish)
	case !s.ViaRoot:
		wrong = "publishes partitions instead of " + p.table
		remedy = fmt.Sprintf("ALTER PUBLICATION %s SET (publish_via_partition_root = true)", p.name)
	case s.Filtered:
		wrong, remedy = "has a row filter on "+p.table, fmt.Sprintf("ALTER PUBLICATION %s SET TABLE %s", p.name, p.table)
	case s.Columns:
		wrong, remedy = "has a column list for "+p.table, fmt.Sprintf("ALTER PUBLICATION %s SET TABLE %s", p.name, p.table)
	default:
		return nil
	}
	return fmt.Errorf("%w: publication %s %s: run %s; what was committed while it was so is not in the stream: "+
		"such events stay in outbox.events undelivered, and such changes of subscriptions are not followed until they are made again",
		ErrSetup, p.name, wrong, remedy)
}

// ensurePublication makes a publication that is not there, and reports whether it did.
func ensurePublication(ctx context.Context, conn *pgx.Conn, p published) (bool, error) {
	var exists bool
	err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_publication WHERE pubname = $1)", p.name).Scan(&exists)
	if err != nil {
		return false, fmt.Errorf("look for publication %s: %w", p.name, err)
	}
	if exists {
		return false, nil
	}
	if _, err := conn.Exec(ctx, p.create()); err != nil {
		return false, fmt.Errorf("create publication %s: %w", p.name, privileges(err, "own the table and have CREATE on the database"))
	}
	return true, nil
}

// watchPublications looks at the publications every few seconds, because somebody may alter them while the
// stream flows, and Postgres would skip silently. When they are wrong the stream is closed: opening it again
// runs the same check, which halts the relay until it passes. The queue goes on meanwhile. It returns when
// the claimer has to be back here, next at the latest.
func (o *ownership) watchPublications(ctx context.Context, conn *pgx.Conn, checked *time.Time, next time.Time) (time.Time, error) {
	const every = 5 * time.Second
	if time.Since(*checked) >= every {
		err := checkPublications(ctx, conn)
		if err != nil && !errors.Is(err, ErrSetup) {
			return next, err
		}
		if err != nil {
			o.reset()
		}
		*checked = time.Now()
	}
	if again := checked.Add(every); again.Before(next) {
		next = again
	}
	return next, nil
}

// slotState is what pg_replication_slots says. Slots belong to the whole cluster, whichever database made them.
type slotState struct {
	Exists, Active bool
	PID            int
	WALStatus      string
	Confirmed      delivery.LSN
	Foreign        string // what it is instead, when it is not a pgoutput slot of this database
}

func readSlot(ctx context.Context, conn *pgx.Conn, slot string) (slotState, error) {
	s := slotState{Exists: true}
	var confirmed string
	err := conn.QueryRow(ctx, `SELECT active, coalesce(active_pid, 0), coalesce(wal_status, ''), coalesce(confirmed_flush_lsn, '0/0')::text,
			CASE WHEN slot_type <> 'logical' THEN 'is a ' || slot_type || ' slot'
				WHEN database <> current_database() THEN 'belongs to database ' || database
				WHEN plugin <> 'pgoutput' THEN 'uses the plugin ' || plugin
				ELSE '' END
		FROM pg_replication_slots WHERE slot_name = $1`, slot).Scan(&s.Active, &s.PID, &s.WALStatus, &confirmed, &s.Foreign)
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

func lostSlot(slot string) error {
	return fmt.Errorf("%w: replication slot %s is gone although its checkpoint exists: events committed since the checkpoint are in outbox.events but not in any stream; "+
		"to go on without them, delete the slot's row from outbox.checkpoint and run walhook init", ErrSetup, slot)
}

// foreignSlot refuses a slot that has nothing to do with this database's outbox.
func foreignSlot(slot, what string) error {
	return fmt.Errorf("%w: replication slot %s %s, and the names of slots are shared by all databases of a server: choose another name with --slot", ErrSetup, slot, what)
}
