package record_test

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/record"
)

// database is what the record transaction writes to, as far as the rule speaks of it.
type database struct {
	checkpoint delivery.Position
	confirmed  delivery.LSN
	delivered  map[uuid.UUID]int // successful attempts in the log
	dead       map[uuid.UUID]bool
	queue      map[uuid.UUID]*row
	emitted    map[uuid.UUID]bool
	changes    int
	mark       uint64 // how much of the stream lies before it
	events     int64
	matched    int64
}

type row struct {
	of       *delivery.Event
	attempts int
	round    int
	leased   bool
}

// commit does what Store does, all or nothing.
func (db *database) commit(b *record.Batch) error {
	if b.Position != (delivery.Position{}) {
		if !b.Position.After(db.checkpoint) {
			return fmt.Errorf("the checkpoint goes from %v back to %v", db.checkpoint, b.Position)
		}
		db.checkpoint = b.Position
	}
	db.confirmed = max(db.confirmed, b.Confirm)
	db.changes += len(b.Changes)
	db.mark = max(db.mark, b.XID)
	for _, t := range b.Tallies {
		db.events += t.Events
		db.matched += t.Matched
	}
	for _, a := range b.Attempts {
		if a.Outcome.Succeeded() {
			db.delivered[a.Delivery.ID]++
		}
	}
	for _, p := range b.Puts {
		if db.queue[p.Delivery.ID] != nil {
			return fmt.Errorf("delivery %s has a row in the queue already", p.Delivery.ID)
		}
		r := &row{of: p.Delivery.Event, leased: p.UnderWay}
		if p.Last != nil {
			r.attempts, r.round = 1, 1
		}
		db.queue[p.Delivery.ID] = r
	}
	for _, m := range b.Moves {
		r := db.queue[m.ID]
		if r == nil || !r.leased {
			return fmt.Errorf("delivery %s is moved on and has no leased row", m.ID)
		}
		r.leased, r.attempts, r.round = false, m.Attempts, m.Round
	}
	for _, id := range b.Deletes {
		if db.queue[id] == nil {
			return fmt.Errorf("delivery %s is finished and has no row", id)
		}
		delete(db.queue, id)
	}
	for _, p := range b.Dead {
		db.dead[p.Delivery.ID] = true
	}
	for _, e := range b.Events {
		db.emitted[e.ID] = true
	}
	return nil
}

// machine is a relay reduced to what touches the window: a stream that can be read again, lanes, a claimer,
// a recorder and kill -9, in any interleaving.
type machine struct {
	db      database
	stream  []delivery.Item // everything ever committed
	matches map[uuid.UUID][]uuid.UUID
	ids     uint64

	now     time.Time
	window  *record.Window
	read    int                  // of stream
	memory  []*delivery.Delivery // offered, not finished; in lanes or under way
	started map[*delivery.Delivery]bool
	cut     *record.Batch // cut and not durable
}

// Withdraw is the lanes' answer: what is not under way never will be.
func (m *machine) Withdraw(d *delivery.Delivery) bool {
	if m.started[d] {
		return true
	}
	m.memory = slices.DeleteFunc(m.memory, func(o *delivery.Delivery) bool { return o == d })
	return false
}

func newMachine() *machine {
	m := &machine{now: noon, matches: map[uuid.UUID][]uuid.UUID{}, db: database{delivered: map[uuid.UUID]int{}, dead: map[uuid.UUID]bool{},
		queue: map[uuid.UUID]*row{}, emitted: map[uuid.UUID]bool{}}}
	m.Kill(nil)
	return m
}

// Kill forgets everything but the database; whoever takes over frees the leases.
func (m *machine) Kill(*rapid.T) {
	m.window = record.NewWindow(record.Limits{Deliveries: 1 << 20, Bytes: 1 << 40, SpillAfter: time.Second, Urgent: 1 << 20}, func() time.Time { return m.now })
	m.window.Connect(m)
	m.memory, m.started, m.cut = nil, map[*delivery.Delivery]bool{}, nil
	for _, r := range m.db.queue {
		r.leased = false
	}
	m.read = 0
	for m.read < len(m.stream) && !m.stream[m.read].Position.After(m.db.checkpoint) {
		m.read++
	}
}

// Write commits a transaction: events, emitted events and changes.
func (m *machine) Write(t *rapid.T) {
	begun := delivery.LSN(0x100)
	if n := len(m.stream); n > 0 {
		begun = m.stream[n-1].Position.LSN // as near to its predecessor as they come
	}
	for i := range uint64(rapid.IntRange(0, 4).Draw(t, "rows")) {
		p := delivery.Position{LSN: begun, Index: i + 1}
		if rapid.IntRange(0, 4).Draw(t, "kind") == 0 {
			m.stream = append(m.stream, delivery.Item{Position: p, Change: &delivery.Change{}})
			continue
		}
		e := &delivery.Event{ID: m.id(), Position: p, Emitted: rapid.Bool().Draw(t, "emitted"),
			CreatedAt: noon.Add(time.Duration(rapid.IntRange(0, 2).Draw(t, "minute")) * time.Minute)}
		for range rapid.IntRange(0, 3).Draw(t, "subscribers") {
			m.matches[e.ID] = append(m.matches[e.ID], m.id())
		}
		m.stream = append(m.stream, delivery.Item{Position: p, Event: e})
	}
	m.stream = append(m.stream, delivery.Item{Position: delivery.Position{LSN: begun + 0x30}})
}

// id returns the next of a sequence that is the same in every run.
func (m *machine) id() (id uuid.UUID) {
	m.ids++
	binary.BigEndian.PutUint64(id[8:], m.ids)
	return id
}

// Read brings the stream's next item into the window; lanes take deliveries or don't.
func (m *machine) Read(t *rapid.T) {
	if m.read == len(m.stream) {
		return
	}
	item := m.stream[m.read]
	m.read++
	switch {
	case item.Event != nil:
		all := m.deliveries(item.Event)
		m.window.Event(item.Event, all)
		if rapid.IntRange(0, 9).Draw(t, "cut between entering and offering") == 0 {
			m.now = m.now.Add(time.Second)
			for _, d := range all {
				m.started[d] = true // a lane that does not have it says so
			}
			m.Cut(t)
		}
		for _, d := range all {
			delete(m.started, d)
			if rapid.IntRange(0, 4).Draw(t, "declined") == 0 {
				m.window.Decline(d)
			} else {
				m.memory = append(m.memory, d)
			}
		}
	case item.Change != nil:
		m.window.Change(item.Position, item.Change)
	default:
		m.window.End(item.Position, m.now)
	}
}

func (m *machine) deliveries(e *delivery.Event) []*delivery.Delivery {
	var all []*delivery.Delivery
	for _, s := range m.matches[e.ID] {
		all = append(all, &delivery.Delivery{ID: delivery.ID(e.ID, s), SubscriptionID: s, Event: e})
	}
	return all
}

// Attempt starts an attempt that a later Finish ends.
func (m *machine) Attempt(t *rapid.T) {
	if len(m.memory) > 0 {
		m.started[rapid.SampledFrom(m.memory).Draw(t, "delivery")] = true
	}
}

// Finish ends an attempt.
func (m *machine) Finish(t *rapid.T) {
	if len(m.memory) == 0 {
		return
	}
	i := rapid.IntRange(0, len(m.memory)-1).Draw(t, "delivery")
	d := m.memory[i]
	m.memory = slices.Delete(m.memory, i, i+1)
	delete(m.started, d)
	settings := &delivery.Settings{MaxRetries: rapid.IntRange(0, 1).Draw(t, "max_retries"), RetryDelay: time.Minute}
	m.window.Finished([]*delivery.Delivery{d}, settings, rapid.SampledFrom([]delivery.Outcome{delivered, failed, stopped}).Draw(t, "outcome"))
}

// Remove ends a lane: what waits in it, from memory or claimed, is released.
func (m *machine) Remove(t *rapid.T) {
	var waiting []*delivery.Delivery
	m.memory = slices.DeleteFunc(m.memory, func(d *delivery.Delivery) bool {
		gone := !m.started[d] && rapid.Bool().Draw(t, "of this lane")
		if gone {
			waiting = append(waiting, d)
		}
		return gone
	})
	m.window.Released(waiting)
}

// Claim takes a row of the queue.
func (m *machine) Claim(t *rapid.T) {
	var free []uuid.UUID
	for id, r := range m.db.queue {
		if !r.leased {
			free = append(free, id)
		}
	}
	if len(free) == 0 {
		return
	}
	slices.SortFunc(free, func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) })
	id := free[rapid.IntRange(0, len(free)-1).Draw(t, "row")]
	r := m.db.queue[id]
	r.leased = true
	d := &delivery.Delivery{ID: id, Event: r.of, Attempts: r.attempts, Round: r.round, Queued: true}
	m.memory = append(m.memory, d)
}

// Wait lets time pass.
func (m *machine) Wait(t *rapid.T) {
	m.now = m.now.Add(time.Duration(rapid.IntRange(1, 1200).Draw(t, "ms")) * time.Millisecond)
}

// Mark enters a mark that says that everything read so far has ended.
func (m *machine) Mark(*rapid.T) {
	if m.read > 0 {
		m.window.Mark(m.stream[m.read-1].Position.LSN, uint64(m.read))
	}
}

// Cut cuts a batch, which is under way to the database until Commit, or a kill.
func (m *machine) Cut(t *rapid.T) {
	if m.cut == nil {
		m.cut = m.window.Cut(rapid.IntRange(0, 9).Draw(t, "all") == 0)
	}
}

// Commit makes the batch durable.
func (m *machine) Commit(t *rapid.T) {
	if m.cut == nil {
		return
	}
	if err := m.db.commit(m.cut); err != nil {
		t.Fatal(err)
	}
	m.window.Recorded(m.cut)
	m.cut = nil
}

// Check is the one rule, and that no delivery is in two places.
func (m *machine) Check(t *rapid.T) {
	if end := (delivery.Position{LSN: m.db.confirmed}); end.After(m.db.checkpoint) {
		t.Fatalf("%v is confirmed, before the checkpoint %v is recorded", m.db.confirmed, m.db.checkpoint)
	}
	if n := m.db.mark; n > 0 && m.stream[n-1].Position.After(m.db.checkpoint) {
		t.Fatalf("the mark has overtaken the checkpoint %v: it stands at %v", m.db.checkpoint, m.stream[n-1].Position)
	}
	changes, events, matched := 0, int64(0), int64(0)
	for _, item := range m.stream {
		if item.Position.After(m.db.checkpoint) {
			break
		}
		if item.Change != nil {
			changes++
		}
		if item.Event == nil {
			continue
		}
		events, matched = events+1, matched+int64(len(m.matches[item.Event.ID]))
		if item.Event.Emitted != m.db.emitted[item.Event.ID] {
			t.Fatalf("the checkpoint %v has passed the emitted event at %v, which is not kept", m.db.checkpoint, item.Position)
		}
		for _, d := range m.deliveries(item.Event) {
			places := 0
			for _, is := range []bool{m.db.delivered[d.ID] > 0, m.db.dead[d.ID], m.db.queue[d.ID] != nil} {
				if is {
					places++
				}
			}
			if places != 1 {
				t.Fatalf("the checkpoint %v has passed the delivery %s at %v, which is in %d of attempts, dead letters and queue", m.db.checkpoint, d.ID, item.Position, places)
			}
		}
	}
	if events != m.db.events || matched != m.db.matched {
		t.Fatalf("%d events with %d deliveries lie before the checkpoint %v, %d and %d are counted", events, matched, m.db.checkpoint, m.db.events, m.db.matched)
	}
	if changes != m.db.changes {
		t.Fatalf("%d changes lie before the checkpoint %v, %d are recorded", changes, m.db.checkpoint, m.db.changes)
	}
}

// record makes everything durable that can be.
func (m *machine) record(t *rapid.T) {
	m.Commit(t)
	m.cut = m.window.Cut(true)
	m.Commit(t)
}

// drain lets everything end.
func (m *machine) drain(t *rapid.T) {
	for m.read < len(m.stream) {
		m.Read(t)
	}
	m.record(t)
	for len(m.memory) > 0 {
		m.Finish(t)
	}
	m.record(t)
	m.Mark(t)
	m.record(t)
	if m.db.mark != uint64(len(m.stream)) {
		t.Fatalf("everything has ended, but the mark stands at %d of %d", m.db.mark, len(m.stream))
	}
	if end := m.stream[len(m.stream)-1].Position; m.db.checkpoint != end || m.db.confirmed != end.LSN {
		t.Fatalf("everything has ended, but the checkpoint stands at %v and %v is confirmed, not %v", m.db.checkpoint, m.db.confirmed, end)
	}
	if !m.window.Empty() || m.window.Unfinished() != 0 {
		t.Fatal("everything has ended, but the window is not empty")
	}
	for id, r := range m.db.queue {
		if r.leased {
			t.Fatalf("everything has ended, but delivery %s is leased for ever", id)
		}
	}
}

// In any interleaving of writers, lanes, claimer, recorder, time and kills: everything at or before the
// checkpoint is in the attempts log with its final attempt, among the dead letters, or in the queue; its events are
// counted once; and no mark stands behind it.
func TestOneRuleHoldsInAnyInterleaving(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine()
		m.Write(t)
		t.Repeat(map[string]func(*rapid.T){
			"write": m.Write, "read": m.Read, "read more": m.Read, "attempt": m.Attempt, "finish": m.Finish, "finish more": m.Finish,
			"claim": m.Claim, "remove": m.Remove, "wait": m.Wait, "mark": m.Mark, "cut": m.Cut, "commit": m.Commit, "kill": m.Kill, "": m.Check,
		})
		m.drain(t)
		m.Check(t)
	})
}

// The same where nothing happens but what marks depend on, which comes to more interleavings of that.
func TestMarksNeverOvertakeInAnyInterleaving(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine()
		m.Write(t)
		t.Repeat(map[string]func(*rapid.T){"write": m.Write, "read": m.Read, "finish": m.Finish, "mark": m.Mark,
			"record": func(t *rapid.T) { m.Cut(t); m.Commit(t) }, "": m.Check})
		m.drain(t)
	})
}
