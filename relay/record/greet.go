package record

import (
	"context"
	"fmt"
	"time"
)

// greet looks at the server that a new connection leads to: at its clock, and at whether it still is the one that the
// epoch began on. What this relay holds in memory follows from a position, which means nothing on a timeline that
// branched off before it, nor in another cluster.
func (s *Store) greet(ctx context.Context) error {
	var theirs time.Time
	var timeline int
	var system string
	before := s.options.Now().Truncate(time.Microsecond) // as theirs is
	err := s.conn.QueryRow(ctx, `SELECT clock_timestamp(),
			('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int,
			(SELECT system_identifier::text FROM pg_control_system())`).Scan(&theirs, &timeline, &system)
	if err != nil {
		return fmt.Errorf("look at the server's clock and timeline: %w", err)
	}
	s.compareClocks(before, theirs, s.options.Now())
	o := &s.options
	if o.Timeline != 0 && timeline != o.Timeline || o.System != "" && system != o.System {
		return fmt.Errorf("%w: timeline %d of cluster %s, not %d of %s", ErrMoved, timeline, system, o.Timeline, o.System)
	}
	return nil
}

// compareClocks measures how far the database's clock is ahead of ours. Batches are stamped with our clock and
// claims are made by the database's, which would make retries come early or late by the difference. What is
// within the time that asking takes is not a difference that can be known.
func (s *Store) compareClocks(before, theirs, after time.Time) {
	s.ahead = 0
	if theirs.Before(before) || theirs.After(after) {
		s.ahead = theirs.Sub(before.Add(after.Sub(before) / 2))
	}
}
