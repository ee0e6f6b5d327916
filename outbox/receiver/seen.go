package receiver

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"time"
)

// Why an id cannot be claimed. Errors of Claim other than these two mean that the store is out of order.
var (
	// ErrHandled: it was handled before. The sender is told that all is well.
	ErrHandled = errors.New("handled before")
	// ErrInProgress: it is being handled right now. The sender is asked to come again.
	ErrInProgress = errors.New("being handled")
)

// Seen remembers what was handled. [Memory] and [Postgres] implement it.
type Seen interface {
	// Claim takes an id to be handled by the caller and nobody else. Its error wraps ErrHandled or
	// ErrInProgress, or is the store's own.
	Claim(ctx context.Context, id string) (Claim, error)
}

// Claim is an id that is being handled. One of its methods is called at the end.
type Claim interface {
	// Done makes the id count as handled.
	Done(ctx context.Context) error
	// Release forgets the id, because handling it failed.
	Release(ctx context.Context) error
}

// Memory remembers ids in this process: enough for one process whose restarts may let a duplicate through.
type Memory struct {
	most int
	keep time.Duration

	mu      sync.Mutex
	entries map[string]*list.Element // nil while the id is being handled
	done    list.List                // of handled ids, oldest first
}

// handled is an entry of Memory's list.
type handled struct {
	id string
	at time.Time
}

// NewMemory remembers the last most ids that were handled, each as long as keep. Keep them longer than the
// sender retries; an id takes about 200 bytes. It panics unless both are positive.
func NewMemory(most int, keep time.Duration) *Memory {
	if most <= 0 || keep <= 0 {
		panic("receiver: NewMemory needs a positive number of ids and a positive time to keep them")
	}
	return &Memory{most: most, keep: keep, entries: map[string]*list.Element{}}
}

// Claim implements Seen.
func (m *Memory) Claim(_ context.Context, id string) (Claim, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forget(time.Now())
	switch entry, known := m.entries[id]; {
	case known && entry == nil:
		return nil, ErrInProgress
	case known:
		return nil, ErrHandled
	}
	m.entries[id] = nil
	return memoryClaim{m, id}, nil
}

// forget drops what is too old or too much.
func (m *Memory) forget(now time.Time) {
	for oldest := m.done.Front(); oldest != nil; oldest = m.done.Front() {
		h := oldest.Value.(handled)
		if m.done.Len() <= m.most && now.Sub(h.at) < m.keep {
			return
		}
		m.done.Remove(oldest)
		delete(m.entries, h.id)
	}
}

type memoryClaim struct {
	memory *Memory
	id     string
}

func (c memoryClaim) Done(context.Context) error {
	m := c.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	m.entries[c.id] = m.done.PushBack(handled{c.id, now})
	m.forget(now)
	return nil
}

func (c memoryClaim) Release(context.Context) error {
	c.memory.mu.Lock()
	defer c.memory.mu.Unlock()
	delete(c.memory.entries, c.id)
	return nil
}
