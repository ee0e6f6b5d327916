package receive

import (
	"time"

	"github.com/google/uuid"
)

// Behaviour is what a receiver does with a request once it is on disk.
type Behaviour string

// The behaviours.
const (
	OK    Behaviour = "ok"    // 200
	Slow  Behaviour = "slow"  // 200, after 20 to 300 ms
	Error Behaviour = "error" // 500
	Busy  Behaviour = "busy"  // 429 with Retry-After: 1
	Reset Behaviour = "reset" // no answer; the connection is reset
	Hang  Behaviour = "hang"  // no answer; the connection is closed by Heal, unless the client does it first
	Flap  Behaviour = "flap"  // OK or Error, either as likely as the other
	Gone  Behaviour = "gone"  // 410
	Early Behaviour = "early" // 200, and the connection is closed in the middle of the response's body
)

// The bounds of Slow.
const (
	slowest = 300 * time.Millisecond
	fastest = 20 * time.Millisecond
)

// Set makes a subscription behave so from now on. Without, it behaves OK.
func (s *Server) Set(subscription uuid.UUID, behaviour Behaviour) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.behaviours[subscription] = behaviour
}

// SetAll makes all subscriptions behave so from now on, whatever Set says of them. The empty Behaviour ends
// that.
func (s *Server) SetAll(behaviour Behaviour) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.override = behaviour
}

// Heal makes all subscriptions behave OK from now on, and closes the connections of requests that hang.
// Nothing but this ends a Hang from here.
func (s *Server) Heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.override = ""
	clear(s.behaviours)
	close(s.healed)
	s.healed = make(chan struct{})
}

// choose decides what to do with a request that has just arrived. The lock is held.
func (s *Server) choose(subscription uuid.UUID) (Behaviour, time.Duration) {
	behaviour := s.override
	if behaviour == "" {
		behaviour = s.behaviours[subscription]
	}
	switch behaviour {
	case "":
		return OK, 0
	case Slow:
		return Slow, fastest + time.Duration(s.random.Int64N(int64(slowest-fastest)))
	case Flap:
		if s.random.IntN(2) == 0 {
			return Error, 0
		}
		return OK, 0
	}
	return behaviour, 0
}
