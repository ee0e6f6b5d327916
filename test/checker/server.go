package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/walhook/walhook/cmd/localpg"
)

// server is the throw-away Postgres that all episodes use, one database each.
type server struct {
	*localpg.Server
	release string // its version in full
	major   int
}

func startServer(ctx context.Context) (*server, error) {
	s, err := localpg.Start(ctx, localpg.Options{Settings: map[string]string{
		"wal_sender_timeout": fmt.Sprintf("%dms", senderTimeout.Milliseconds()),
		"max_wal_size":       "256MB",
		// So that what is recovered from its row bears the time of its commit.
		"track_commit_timestamp": "on",
		// Spills of large transactions happen at any size, and an old one must be broken off somewhere.
		"logical_decoding_work_mem": "1MB",
	}})
	if err != nil {
		return nil, fmt.Errorf("start Postgres: %w", err)
	}
	out := &server{Server: s}
	err = out.admin(ctx, fmt.Sprintf("CREATE ROLE %s LOGIN SUPERUSER PASSWORD '%s'", role, password))
	if err == nil {
		err = out.identify(ctx)
	}
	if err != nil {
		_ = s.Close()
		return nil, err
	}
	return out, nil
}

func (s *server) identify(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return conn.QueryRow(ctx, "SELECT current_setting('server_version'), current_setting('server_version_num')::int / 10000").Scan(&s.release, &s.major)
}

// admin runs a statement in the database postgres.
func (s *server) admin(ctx context.Context, statement string) error {
	conn, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, statement); err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	return nil
}

func (s *server) createDatabase(ctx context.Context, name string) error {
	return s.admin(ctx, "CREATE DATABASE "+name+" TEMPLATE template0")
}

// dropDatabase drops a database with its slots, whose readers take a moment to leave, and with the prepared
// transactions of an episode that did not come to its end: new slots would wait for them for ever.
func (s *server) dropDatabase(ctx context.Context, name string) error {
	err := s.rollBackPrepared(ctx, name)
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); {
		err = s.admin(ctx, `SELECT pg_terminate_backend(active_pid), pg_sleep(0.02) FROM pg_replication_slots WHERE database = '`+name+`' AND active`)
		if err == nil {
			err = s.admin(ctx, `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = '`+name+`'`)
		}
		if err == nil {
			return s.admin(ctx, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)")
		}
	}
	return err
}

func (s *server) rollBackPrepared(ctx context.Context, name string) error {
	conn, err := pgx.Connect(ctx, s.URL(name))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	rows, err := conn.Query(ctx, "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()")
	if err != nil {
		return err
	}
	gids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, gid := range gids {
		if _, err := conn.Exec(ctx, "ROLLBACK PREPARED '"+gid+"'"); err != nil {
			return fmt.Errorf("roll %s back: %w", gid, err)
		}
	}
	return nil
}
