package record

import (
	"context"
	"fmt"
	"time"
)

// repeatTrouble is how often a failure that lasts is logged.
const repeatTrouble = 10 * time.Second

// trouble is the last failure to record.
type trouble struct {
	text   string    // empty when there is none
	logged time.Time // when the log last had it
}

// failed reports a failure. The log gets it at once if it is a new one, and only now and then while it lasts.
func (s *Store) failed(err error) {
	if text := err.Error(); text != s.trouble.text || time.Since(s.trouble.logged) >= repeatTrouble {
		s.trouble = trouble{text, time.Now()}
		s.options.Log.Warn().Err(err).Msg("recording failed, trying again")
	}
	if s.options.Trouble != nil {
		s.options.Trouble(err)
	}
}

// recovered reports the end of a trouble, if there was one.
func (s *Store) recovered() {
	if s.trouble.text == "" {
		return
	}
	s.trouble = trouble{}
	s.options.Log.Info().Msg("recording works again")
	if s.options.Trouble != nil {
		s.options.Trouble(nil)
	}
}

// compareClocks measures how far the database's clock is ahead of ours. Batches are stamped with our clock and
// claims are made by the database's, which would make retries come early or late by the difference. What is
// within the time that asking takes is not a difference that can be known.
func (s *Store) compareClocks(ctx context.Context) error {
	var theirs time.Time
	before := s.options.Now().Truncate(time.Microsecond) // as theirs is
	if err := s.conn.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&theirs); err != nil {
		return fmt.Errorf("compare clocks: %w", err)
	}
	after := s.options.Now()
	s.ahead = 0
	if theirs.Before(before) || theirs.After(after) {
		s.ahead = theirs.Sub(before.Add(after.Sub(before) / 2))
	}
	return nil
}
