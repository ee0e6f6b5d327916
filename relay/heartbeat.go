package relay

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/stream"
)

const (
	unseenFor   = 30 * time.Second // until a heartbeat that does not come back means that the stream only claims to be well
	mostPending = 16               // heartbeats under way; behind a backlog more of them tell nothing new
)

// beat is a heartbeat that was sent and has not come back.
type beat struct {
	token string
	sent  time.Time
	at    delivery.LSN // where its message stands; 0 while it is being sent
}

// pulse follows heartbeats: transactional messages that the claimer writes into the WAL and the pump finds in the
// stream. It is kept apart from the state of the stream, as trouble is.
type pulse struct {
	mu      sync.Mutex
	pending []beat       // the oldest first
	moved   time.Time    // when the stream last got on
	idle    delivery.LSN // up to which it has nothing more for us, says the server
}

// reset forgets what was sent: the stream begins anew.
func (p *pulse) reset(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pending, p.moved, p.idle = nil, now, 0
}

// send notes a heartbeat, before it is sent. It reports whether it is to be.
func (p *pulse) send(token string, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.pending) >= mostPending {
		return false
	}
	p.pending = append(p.pending, beat{token: token, sent: now})
	return true
}

// stands notes where a heartbeat's message stands, if it has not come back already.
func (p *pulse) stands(token string, at delivery.LSN) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := p.index(token); i >= 0 {
		p.pending[i].at = at
	}
}

// unsent forgets a heartbeat that could not be sent.
func (p *pulse) unsent(token string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := p.index(token); i >= 0 {
		p.pending = slices.Delete(p.pending, i, i+1)
	}
}

func (p *pulse) index(token string) int {
	return slices.IndexFunc(p.pending, func(b beat) bool { return b.token == token })
}

// seen takes a heartbeat out of the stream and returns how long it was under way. Those of others, and from before the
// stream was opened, are not known.
func (p *pulse) seen(token string, now time.Time) (time.Duration, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := p.index(token)
	if i < 0 {
		return 0, false
	}
	took := now.Sub(p.pending[i].sent)
	p.pending = slices.Delete(p.pending, 0, i+1)
	return took, true
}

// progress notes that something came, or that the server has got further with nothing for us.
func (p *pulse) progress(now time.Time, came bool, idle delivery.LSN) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if came || idle > p.idle {
		p.moved = now
	}
	p.idle = max(p.idle, idle)
}

// over makes a good state a bad one when a heartbeat is missing: one that the server says it has passed, or any while
// nothing moves. One that waits behind a backlog is not missing.
func (p *pulse) over(h Health, now time.Time) Health {
	p.mu.Lock()
	defer p.mu.Unlock()
	if h.State != Running || len(p.pending) == 0 {
		return h
	}
	b := p.pending[0]
	passed := b.at != 0 && p.idle > b.at
	if late := now.Sub(b.sent); late > unseenFor && (passed || now.Sub(p.moved) > unseenFor) {
		return Health{State: Reconnecting, Code: CodeHeartbeat, Error: fmt.Sprintf("a heartbeat sent %s ago has not come through the stream, which claims to be well: "+
			"look at outbox.replication_lag and synchronized_standby_slots, or restart the relay", late.Round(time.Second))}
	}
	return h
}

// beat sends a heartbeat when one is due and the stream flows. It returns when the claimer has to be back here, next at
// the latest.
func (o *ownership) beat(ctx context.Context, conn *pgx.Conn, last *time.Time, next time.Time) (time.Time, error) {
	every := o.options.Heartbeat
	if every <= 0 {
		return next, nil
	}
	if time.Since(*last) >= every {
		*last = time.Now()
		if err := o.sendBeat(ctx, conn); err != nil {
			return next, err
		}
	}
	if again := last.Add(every); again.Before(next) {
		next = again
	}
	return next, nil
}

func (o *ownership) sendBeat(ctx context.Context, conn *pgx.Conn) error {
	token := uuid.NewString()
	if o.relay.health.Load().State != Running || !o.relay.pulse.send(token, time.Now()) {
		return nil
	}
	var text string
	err := conn.QueryRow(ctx, "SELECT pg_logical_emit_message(true, $1, $2::text)::text", stream.HeartbeatPrefix, token).Scan(&text)
	if err != nil {
		o.relay.pulse.unsent(token)
		return fmt.Errorf("send heartbeat: %w", err)
	}
	at, err := delivery.ParseLSN(text)
	if err != nil {
		return fmt.Errorf("send heartbeat: %w", err)
	}
	o.relay.pulse.stands(token, at)
	return nil
}

// felt takes what a batch tells about the stream's pulse.
func (o *ownership) felt(b *stream.Batch) {
	now := time.Now()
	o.relay.pulse.progress(now, len(b.Items)+len(b.Heartbeats) > 0, b.Idle)
	for _, token := range b.Heartbeats {
		if took, ours := o.relay.pulse.seen(token, now); ours {
			o.relay.observer.Heartbeat(took)
		}
	}
}
