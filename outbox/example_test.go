package outbox_test

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/walhook/walhook/outbox"
)

// The event is published in the transaction that makes the change: both are committed, or neither is.
func ExamplePublish() {
	admit := func(ctx context.Context, pool *pgxpool.Pool, id, name string) error {
		return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "INSERT INTO patients (id, name) VALUES ($1, $2)", id, name); err != nil {
				return fmt.Errorf("insert patient: %w", err)
			}
			_, err := outbox.Publish(ctx, tx, outbox.Event{
				Type:    "patient.created",
				Key:     id, // events of one patient can be delivered in order
				Payload: map[string]any{"patient_id": id, "name": name},
			})
			return err
		})
	}
	_ = admit
}

// The same with database/sql and whatever driver it uses.
func ExamplePublishSQL() {
	admit := func(ctx context.Context, db *sql.DB, id, name string) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback() }() // does nothing after Commit
		if _, err := tx.ExecContext(ctx, "INSERT INTO patients (id, name) VALUES ($1, $2)", id, name); err != nil {
			return fmt.Errorf("insert patient: %w", err)
		}
		if _, err := outbox.PublishSQL(ctx, tx, outbox.Event{Type: "patient.created", Key: id}); err != nil {
			return err
		}
		return tx.Commit()
	}
	_ = admit
}

// A whole import is published with a few statements.
func ExamplePublishBatch() {
	publish := func(ctx context.Context, tx pgx.Tx, patients []string) error {
		events := make([]outbox.Event, len(patients))
		for i, id := range patients {
			events[i] = outbox.Event{Type: "patient.imported", Key: id}
		}
		_, err := outbox.PublishBatch(ctx, tx, events)
		return err
	}
	_ = publish
}

// An event can be checked before a transaction begins.
func ExampleEvent_Validate() {
	fmt.Println(outbox.Event{Type: "patient created"}.Validate())
	// Output: invalid event: type "patient created" has ' ' at byte 7: use printable ASCII without spaces and '*', as in patient.created
}
