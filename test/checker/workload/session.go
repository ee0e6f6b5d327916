package workload

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/walhook/walhook/test/checker/history"
)

// sessionPrefix begins the application_name of every connection of the workload.
const sessionPrefix = "workload-"

// retryPause is between two attempts to reach the server.
const retryPause = 50 * time.Millisecond

// session is a connection that is made again when it broke. It belongs to one goroutine.
type session struct {
	url  string
	conn *pgx.Conn // nil before the first connection
	name string    // of this connection alone: what still runs of a broken one is found by it
}

// open connects unless there is a connection, and tries until the server is there. It fails when ctx ends, or
// when the server refuses for a reason that does not pass.
func (s *session) open(ctx context.Context) error {
	if s.conn != nil && !s.conn.IsClosed() {
		return nil
	}
	config, err := pgx.ParseConfig(s.url)
	if err != nil {
		return fmt.Errorf("the workload's database: %w", err)
	}
	config.ConnectTimeout = 5 * time.Second
	// Whatever a fault makes the default, what these sessions were told to be committed has to be on disk. The
	// relay may be paused with a row of a subscription locked.
	config.RuntimeParams["synchronous_commit"] = "on"
	config.RuntimeParams["lock_timeout"] = "5s"
	for {
		s.name = sessionPrefix + uuid.NewString()
		config.RuntimeParams["application_name"] = s.name
		if s.conn, err = pgx.ConnectConfig(ctx, config); err == nil {
			return nil
		}
		s.conn = nil
		var refusal *pgconn.PgError
		if errors.As(err, &refusal) && !passes(refusal) {
			return fmt.Errorf("connect the workload: %w", err)
		}
		if err := pause(ctx, retryPause); err != nil {
			return err
		}
	}
}

// close ends the connection. What it was told and did not answer may still be done by the server.
func (s *session) close() {
	if s.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = s.conn.Close(ctx) // it is broken, or nothing is under way
}

// pause waits, and fails when ctx ends before.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// explained reports whether faults explain that a statement failed. Any other error is one of the checker's own
// and must not pass as a transaction that was rolled back.
func (s *session) explained(err error) bool {
	var refusal *pgconn.PgError
	switch {
	case s.conn.IsClosed(), errors.Is(err, context.DeadlineExceeded):
		return true
	case errors.As(err, &refusal):
		return passes(refusal)
	}
	return false
}

// passes judges by SQLSTATE: connections, serialization, resources, locks and operators come and go.
func passes(refusal *pgconn.PgError) bool {
	const lockNotAvailable = "55P03"
	classes := []string{"08", "40", "53", "57"}
	return refusal.Code == lockNotAvailable || len(refusal.Code) == 5 && slices.Contains(classes, refusal.Code[:2])
}

// reply is what came of a command that decides over a transaction.
type reply int

const (
	accepted reply = iota
	refused        // the server said no, or the command was never sent
	noReply        // it was sent, and what became of it has to be found out
)

// outcome is what a reply to COMMIT means.
func (r reply) outcome() history.Outcome {
	switch r {
	case accepted:
		return history.Committed
	case refused:
		return history.RolledBack
	}
	return history.Unknown
}

// decide sends COMMIT, PREPARE TRANSACTION or one of their kind; want is the command tag of its success, since a
// COMMIT of a failed transaction succeeds as ROLLBACK. The error is one that no fault explains.
func (s *session) decide(ctx context.Context, command, want string) (reply, error) {
	// pgconn.SafeToRetry does not tell what was sent: in pgx 5.12 it holds, too, for the "conn closed" with which a
	// command ends whose reply breaks off without a word from the server.
	if s.conn.IsClosed() || ctx.Err() != nil {
		s.close() // the server rolls back
		return refused, nil
	}
	tag, err := s.conn.Exec(ctx, command)
	if err == nil && tag.String() == want {
		return accepted, nil
	}
	if err == nil {
		return refused, fmt.Errorf("%s was answered with %s", command, tag)
	}
	var refusal *pgconn.PgError
	// FATAL is no answer to the command: it may come after the commit record was written. ERROR cannot.
	if errors.As(err, &refusal) && refusal.SeverityUnlocalized == "ERROR" {
		if s.explained(err) {
			return refused, nil
		}
		return refused, fmt.Errorf("%s: %w", command, err)
	}
	s.close()
	return noReply, nil
}

// rollBack ends the transaction, by closing the connection if need be.
func (s *session) rollBack(ctx context.Context) {
	if _, err := s.conn.Exec(ctx, "ROLLBACK"); err != nil {
		s.close()
	}
}

// endOthers ends the sessions of the workload whose name is like the pattern, and waits until they are gone: a
// server process whose client has left may still be about to commit.
func (s *session) endOthers(ctx context.Context, pattern string) error {
	for {
		var left int
		err := s.conn.QueryRow(ctx, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
			WHERE datname = current_database() AND application_name LIKE $1 AND pid <> pg_backend_pid()`, pattern).Scan(&left)
		if err != nil {
			return fmt.Errorf("end the sessions like %s: %w", pattern, err)
		}
		if left == 0 {
			return nil
		}
		if err := pause(ctx, retryPause); err != nil {
			return fmt.Errorf("%d sessions like %s do not end: %w", left, pattern, err)
		}
	}
}
