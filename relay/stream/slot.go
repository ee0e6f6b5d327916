package stream

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/walhook/walhook/relay/delivery"
)

// System says which Postgres this is.
type System struct {
	Identifier string // of the cluster; a copy of its files has the same
	Timeline   int32
}

// identify asks the server who it is.
func identify(ctx context.Context, pg *pgconn.PgConn) (System, error) {
	r, err := pglogrepl.IdentifySystem(ctx, pg)
	if err != nil {
		return System{}, fmt.Errorf("identify system: %w", err)
	}
	return System{Identifier: r.SystemID, Timeline: r.Timeline}, nil
}

// Created is a new slot together with the snapshot in which everything committed before it is seen and
// nothing after. The snapshot lives until Close.
type Created struct {
	System   System
	From     delivery.LSN // the slot's consistent point
	Snapshot string       // for SET TRANSACTION SNAPSHOT
	pg       *pgconn.PgConn
}

// CreateSlot makes the replication slot; its publications must exist before it.
func CreateSlot(ctx context.Context, url, slot string) (*Created, error) {
	return createWith(ctx, url, slot, create)
}

// CreateTemporary makes a slot that is there until Close, and that no standby keeps a copy of: a point in the WAL with its
// snapshot.
func CreateTemporary(ctx context.Context, url, slot string) (*Created, error) {
	return createWith(ctx, url, slot, func(ctx context.Context, pg *pgconn.PgConn, slot string) (delivery.LSN, string, error) {
		return createPlain(ctx, pg, slot, true)
	})
}

func createWith(ctx context.Context, url, slot string, create func(context.Context, *pgconn.PgConn, string) (delivery.LSN, string, error)) (*Created, error) {
	pg, err := Connect(ctx, url)
	if err != nil {
		return nil, err
	}
	system, err := identify(ctx, pg)
	if err != nil {
		_ = pg.Close(ctx)
		return nil, err
	}
	from, snapshot, err := create(ctx, pg, slot)
	if err != nil {
		_ = pg.Close(ctx)
		return nil, fmt.Errorf("create replication slot %s: %w", slot, err)
	}
	return &Created{System: system, From: from, Snapshot: snapshot, pg: pg}, nil
}

// failoverSince is the first version of Postgres whose slots can follow a failover to a standby.
const failoverSince = 17

// create makes the slot, from Postgres 17 on as one that standbys may keep a copy of (CREATE_REPLICATION_SLOT, "53.4.
// Streaming Replication Protocol"). pglogrepl does not know that option.
func create(ctx context.Context, pg *pgconn.PgConn, slot string) (delivery.LSN, string, error) {
	if major(pg.ParameterStatus("server_version")) >= failoverSince {
		return createFailover(ctx, pg, slot)
	}
	return createPlain(ctx, pg, slot, false)
}

func createPlain(ctx context.Context, pg *pgconn.PgConn, slot string, temporary bool) (delivery.LSN, string, error) {
	r, err := pglogrepl.CreateReplicationSlot(ctx, pg, slot, "pgoutput", pglogrepl.CreateReplicationSlotOptions{
		Temporary: temporary, Mode: pglogrepl.LogicalReplication, SnapshotAction: "EXPORT_SNAPSHOT"})
	if err != nil {
		return 0, "", err
	}
	from, err := delivery.ParseLSN(r.ConsistentPoint)
	return from, r.SnapshotName, err
}

// major reads the first number of a version such as "17.10 (Debian 17.10-1)" or "18beta1"; 0 when there is none.
func major(version string) int {
	end := strings.IndexFunc(version, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(version)
	}
	n, _ := strconv.Atoi(version[:end])
	return n
}

func createFailover(ctx context.Context, pg *pgconn.PgConn, slot string) (delivery.LSN, string, error) {
	results, err := pg.Exec(ctx, "CREATE_REPLICATION_SLOT "+pgx.Identifier{slot}.Sanitize()+" LOGICAL pgoutput (SNAPSHOT 'export', FAILOVER true)").ReadAll()
	if err != nil {
		return 0, "", err
	}
	const columns = 4 // slot_name, consistent_point, snapshot_name, output_plugin
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) != columns {
		return 0, "", fmt.Errorf("the server answered with %d results instead of one row of %d columns", len(results), columns)
	}
	row := results[0].Rows[0]
	from, err := delivery.ParseLSN(string(row[1]))
	return from, string(row[2]), err
}

// Close ends the snapshot, and a temporary slot with it.
func (c *Created) Close(ctx context.Context) { _ = c.pg.Close(ctx) }
