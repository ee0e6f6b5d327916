package relay_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay"
	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/test/harness"
)

// listener is an observer that hears heartbeats.
type listener struct {
	deaf
	beats chan time.Duration
}

func (l listener) Heartbeat(d time.Duration) {
	select {
	case l.beats <- d:
	default:
	}
}

// TestHeartbeat comes back through the stream, measured, and is recorded by nobody. Those of others are not ours.
func TestHeartbeat(t *testing.T) {
	t.Parallel()
	_, url, db := ownServer(t, nil)
	o := options(url)
	o.Heartbeat = 20 * time.Millisecond
	l := listener{beats: make(chan time.Duration, 1)}
	observed := launchWith(t, o, l)
	<-l.beats
	harness.Eventually(t, soon, "it is at rest", func() bool {
		before := value[int](t, db, "SELECT batch FROM outbox.checkpoint")
		for range 20 {
			<-l.beats
		}
		return before == value[int](t, db, "SELECT batch FROM outbox.checkpoint")
	})
	exec(t, db, "SELECT pg_logical_emit_message(true, 'walhook.heartbeat', 'somebody else''s'), pg_logical_emit_message(true, 'walhook.heartbeat', repeat('x', 100000))")
	for range 3 {
		require.Positive(t, <-l.beats)
	}
	require.Equal(t, relay.Running, observed.Health().State)
}

// TestHeartbeatMovesTheSlot in a busy database with an idle outbox: both positions of the slot follow.
func TestHeartbeatMovesTheSlot(t *testing.T) {
	t.Parallel()
	_, url, db := ownServer(t, nil)
	o := options(url)
	o.Heartbeat = 200 * time.Millisecond
	l := listener{beats: make(chan time.Duration, 1)}
	launchWith(t, o, l)
	exec(t, db, "CREATE TABLE unrelated (text text)")
	for range 2 {
		before := value[string](t, db, "SELECT pg_current_wal_lsn()::text")
		exec(t, db, "INSERT INTO unrelated SELECT repeat('x', 1000) FROM generate_series(1, 4000)")
		harness.Eventually(t, soon, "both positions follow", func() bool {
			exec(t, db, "CHECKPOINT") // notes which transactions run, as the server does by itself now and then
			exec(t, db, "INSERT INTO unrelated SELECT repeat('x', 1000) FROM generate_series(1, 1000)")
			return value[bool](t, db, "SELECT confirmed_flush_lsn > $1::text::pg_lsn AND restart_lsn > $1::text::pg_lsn FROM pg_replication_slots", before)
		})
	}
}

// TestPulse says when a missing heartbeat means that the stream only claims to be well.
func TestPulse(t *testing.T) {
	t.Parallel()
	began := time.Now()
	at := func(s int) time.Time { return began.Add(time.Duration(s) * time.Second) }
	running := relay.Health{State: relay.Running}
	for name, tt := range map[string]struct {
		do    func(p *relay.Pulse)
		ready bool
	}{
		"none was sent":                 {func(*relay.Pulse) {}, true},
		"one is missing, nothing moves": {func(p *relay.Pulse) { p.Send("a", at(0)) }, false},
		"one is young":                  {func(p *relay.Pulse) { p.Send("a", at(50)) }, true},
		"it came back":                  {func(p *relay.Pulse) { p.Send("a", at(0)); p.Seen("a", at(1)) }, true},
		"a later one came back":         {func(p *relay.Pulse) { p.Send("a", at(0)); p.Send("b", at(1)); p.Seen("b", at(2)) }, true},
		"a foreign one came":            {func(p *relay.Pulse) { p.Send("a", at(0)); p.Seen("b", at(1)) }, false},
		"it could not be sent":          {func(p *relay.Pulse) { p.Send("a", at(0)); p.Unsent("a") }, true},
		"the stream began anew":         {func(p *relay.Pulse) { p.Send("a", at(0)); p.Reset(at(59)) }, true},
		"behind a backlog":              {func(p *relay.Pulse) { p.Send("a", at(0)); p.Progress(at(59), true, 0) }, true},
		"the server gets on": {func(p *relay.Pulse) {
			p.Send("a", at(0))
			p.Stands("a", 100)
			p.Progress(at(59), false, delivery.LSN(50))
		}, true},
		"the server has passed it": {func(p *relay.Pulse) {
			p.Send("a", at(0))
			p.Stands("a", 100)
			p.Progress(at(59), false, delivery.LSN(101))
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var p relay.Pulse
			p.Reset(at(0))
			tt.do(&p)
			h := p.Over(running, at(60))
			require.Equal(t, tt.ready, h.Ready(), h.Error)
			if !tt.ready {
				require.Equal(t, relay.CodeHeartbeat, h.Code)
			}
			require.Equal(t, relay.Health{State: relay.Halted}, p.Over(relay.Health{State: relay.Halted}, at(60)), "what is worse stays")
		})
	}
}
