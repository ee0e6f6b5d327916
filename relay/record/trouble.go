package record

import "time"

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
