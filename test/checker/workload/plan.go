package workload

import (
	"math/rand/v2"

	"github.com/walhook/walhook/test/checker/history"
)

// plan is a transaction that was decided on. Only its events' numbers are given when it is carried out.
type plan struct {
	steps  []step
	ending ending
	fate   fate // of a prepared transaction
}

// ending is how a transaction ends if nothing breaks.
type ending int

const (
	commit ending = iota
	rollBack
	prepare
)

// fate is what becomes of a prepared transaction.
type fate struct {
	commit    bool
	after     int  // so many transactions of its writer later; 0: at once
	elsewhere bool // by another connection
}

// step is one act within a transaction.
type step struct {
	kind   kind
	depth  int     // of a savepoint: how many were open when it was set
	events []event // of publish
	way    way     // of publish
	change change  // of alter
}

type kind int

const (
	publish kind = iota
	alter        // a subscription
	savepoint
	release
	rollBackTo
)

// way is how events are published.
type way int

const (
	byPublish way = iota // one call of outbox.publish each
	byEmit               // one call of outbox.emit each
	byInsert             // one statement
	byCopy
)

// number gives every event its number.
func (p *plan) number(next func() int64) {
	for _, s := range p.steps {
		for i := range s.events {
			s.events[i].payload.N = next()
		}
	}
}

// rows counts the events.
func (p *plan) rows() int {
	n := 0
	for _, s := range p.steps {
		n += len(s.events)
	}
	return n
}

// write is the entry in the log, without the outcome. It follows the savepoints as Postgres does: rolling back to
// one, or releasing it, ends those that were set after it.
func (p *plan) write() history.Write {
	var kept, undone []int64
	var marks []int // for each open savepoint, how many were kept when it was set
	for _, s := range p.steps {
		switch s.kind {
		case savepoint:
			marks = append(marks, len(kept))
		case release:
			marks = marks[:s.depth]
		case rollBackTo:
			undone = append(undone, kept[marks[s.depth]:]...)
			kept = kept[:marks[s.depth]]
			marks = marks[:s.depth+1]
		case publish:
			for _, e := range s.events {
				kept = append(kept, e.payload.N)
			}
		}
	}
	return history.Write{Kept: kept, Undone: undone, Prepared: p.ending == prepare}
}

// planner decides on one transaction.
type planner struct {
	random *rand.Rand
	steps  []step
	open   int // savepoints
}

// chance is true in so many of a hundred cases.
func chance(random *rand.Rand, percent int) bool { return random.IntN(100) < percent }

// pick returns one of the values.
func pick[T any](random *rand.Rand, values ...T) T { return values[random.IntN(len(values))] }

// decide makes the plan of a writer's next transaction.
func decide(random *rand.Rand) plan {
	p := planner{random: random}
	if chance(random, 20) {
		p.publish(random.IntN(6))
		for range 1 + random.IntN(2) {
			p.block()
		}
		p.publish(random.IntN(6))
	} else {
		p.publish(p.size())
	}
	all := plan{steps: p.steps}
	switch roll := random.IntN(100); {
	case roll < 15:
		all.ending = rollBack
	case roll < 20:
		all.ending = prepare
		all.fate = fate{commit: chance(random, 65), after: pick(random, 0, 0, 1, 3, 10), elsewhere: chance(random, 50)}
	}
	return all
}

// size draws how many events a plain transaction has: mostly few.
func (p *planner) size() int {
	switch roll := p.random.IntN(100); {
	case roll < 70:
		return 1 + p.random.IntN(3)
	case roll < 92:
		return 4 + p.random.IntN(7)
	}
	return 11 + p.random.IntN(mostRows-10)
}

// publish adds n events, in batches.
func (p *planner) publish(n int) {
	for n > 0 {
		s := step{kind: publish, way: p.way(n)}
		most := map[way]int{byPublish: 4, byEmit: 4, byInsert: 8, byCopy: 30}[s.way]
		for range 1 + p.random.IntN(min(n, most)) {
			s.events = append(s.events, newEvent(p.random))
		}
		n -= len(s.events)
		p.steps = append(p.steps, s)
	}
}

// way draws how the next of n events are published. COPY is for many.
func (p *planner) way(n int) way {
	switch roll := p.random.IntN(100); {
	case roll < 14:
		return byEmit
	case roll < 50:
		return byPublish
	case roll < 60 && n >= 3:
		return byCopy
	}
	return byInsert
}

// block adds a savepoint with events, maybe with further savepoints within it, and what becomes of it. One that is
// released may still be undone by an outer one.
func (p *planner) block() {
	depth := p.set()
	p.publish(1 + p.random.IntN(4))
	if depth < 3 && chance(p.random, 40) {
		p.block()
		p.publish(p.random.IntN(2))
	}
	switch p.random.IntN(5) {
	case 0, 1:
		p.end(release, depth)
	case 2:
		p.end(rollBackTo, depth)
	case 3:
		p.end(rollBackTo, depth)
		p.publish(1 + p.random.IntN(2))
		p.end(release, depth)
	default: // the transaction ends with it open
	}
}

func (p *planner) set() (depth int) {
	depth = p.open
	p.open++
	p.steps = append(p.steps, step{kind: savepoint, depth: depth})
	return depth
}

// end releases a savepoint or rolls back to it, after which it is still set.
func (p *planner) end(how kind, depth int) {
	p.open = depth
	if how == rollBackTo {
		p.open++
	}
	p.steps = append(p.steps, step{kind: how, depth: depth})
}
