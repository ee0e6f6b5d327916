package stream

import (
	"context"
	"fmt"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/walhook/walhook/relay/delivery"
)

// System says which Postgres this is.
type System struct {
	Identifier string // of the cluster; a copy of its files has the same
	Timeline   int32
}

// Identify asks the server who it is.
func Identify(ctx context.Context, url string) (System, error) {
	pg, err := Connect(ctx, url)
	if err != nil {
		return System{}, err
	}
	defer func() { _ = pg.Close(ctx) }()
	return identify(ctx, pg)
}

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
	pg, err := Connect(ctx, url)
	if err != nil {
		return nil, err
	}
	system, err := identify(ctx, pg)
	if err != nil {
		_ = pg.Close(ctx)
		return nil, err
	}
	r, err := pglogrepl.CreateReplicationSlot(ctx, pg, slot, "pgoutput", pglogrepl.CreateReplicationSlotOptions{
		Mode: pglogrepl.LogicalReplication, SnapshotAction: "EXPORT_SNAPSHOT"})
	if err != nil {
		_ = pg.Close(ctx)
		return nil, fmt.Errorf("create replication slot %s: %w", slot, err)
	}
	from, err := delivery.ParseLSN(r.ConsistentPoint)
	if err != nil {
		_ = pg.Close(ctx)
		return nil, fmt.Errorf("consistent point of slot %s: %w", slot, err)
	}
	return &Created{System: system, From: from, Snapshot: r.SnapshotName, pg: pg}, nil
}

// Close ends the snapshot.
func (c *Created) Close(ctx context.Context) { _ = c.pg.Close(ctx) }
