// Package truth says what the relay should have done, without any of its code: what was committed it reads
// from a logical slot of its own, with the plugin test_decoding, and who should have got what it works out
// with the simplest reading of the contract.
package truth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/walhook/walhook/test/checker/history"
)

// reconnectPause is how long the reader leaves a server alone that broke its connection.
const reconnectPause = 100 * time.Millisecond

// Reader reads a slot and keeps every transaction in which something concerns the outbox, in commit order and
// each once. Its methods may be called from any goroutine.
type Reader struct {
	url  string
	slot string
	hook func(history.Tx)

	mu      sync.Mutex // guards what follows
	txs     []history.Tx
	reached history.LSN   // everything that ends at or before it was read, and the hook was called for it
	changed chan struct{} // closed, and made again, when reached or err changes
	err     error         // why the last connection ended
	failed  bool          // err is for good
}

// NewReader returns a reader of a slot that Create made. The URL is an ordinary one of the slot's database.
func NewReader(url, slot string) *Reader {
	return &Reader{url: url, slot: slot, changed: make(chan struct{})}
}

// Tail has f called with each transaction that is kept, in order, from Run's goroutine: f must not wait for
// the reader, and has to be quick, because the server is not answered meanwhile. Call it before Run.
func (r *Reader) Tail(f func(history.Tx)) { r.hook = f }

// Run reads until ctx ends, which is no error. Whatever happens to the server, it connects again for ever; what
// a server that crashed sends once more is dropped. The only error is output that the reader doesn't understand.
// It may be called again after it has returned, and continues then.
func (r *Reader) Run(ctx context.Context) error {
	for {
		err := r.stream(ctx)
		if ctx.Err() != nil {
			return nil
		}
		failed := errors.Is(err, errOutput)
		r.ended(err, failed)
		if failed {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(reconnectPause):
		}
	}
}

// Txs returns the transactions so far. The caller must not change them.
func (r *Reader) Txs() []history.Tx {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clip(r.txs)
}

// Until blocks until everything that was committed at or before a position was read and the hook was called for
// it. The position should be one that the WAL was flushed to, such as pg_current_wal_flush_lsn() after a commit:
// an insert position may lie behind a page's header, where no record ends, and an idle server never gets there.
func (r *Reader) Until(ctx context.Context, lsn history.LSN) error {
	for {
		s := r.state()
		switch {
		case s.reached >= lsn:
			return nil
		case s.failed:
			return s.err
		}
		select {
		case <-s.changed:
		case <-ctx.Done():
			return fmt.Errorf("wait until %s is read, %s was (last connection: %w): %w", lsn, s.reached, s.err, ctx.Err())
		}
	}
}

// state is what Until looks at.
type state struct {
	reached history.LSN
	changed <-chan struct{}
	err     error
	failed  bool
}

func (r *Reader) state() state {
	r.mu.Lock()
	defer r.mu.Unlock()
	return state{reached: r.reached, changed: r.changed, err: r.err, failed: r.failed}
}

// stream reads over one connection until it breaks.
func (r *Reader) stream(ctx context.Context) error {
	l, err := open(ctx, r.url, r.slot)
	if err != nil {
		return err
	}
	defer l.close()
	var t transaction
	for {
		m, err := l.receive(ctx, r.state().reached)
		if err != nil {
			return err
		}
		if err := r.take(&t, m); err != nil {
			return err
		}
		if m.reply {
			if err := l.confirm(r.state().reached, false); err != nil {
				return err
			}
		}
	}
}

// take handles one message. A keepalive tells how far the server has read the WAL, and so that nothing
// committed up to there is still to come, unless it is sent amid a transaction.
func (r *Reader) take(t *transaction, m message) error {
	if !m.data {
		if !t.open {
			r.advance(m.lsn)
		}
		return nil
	}
	complete, err := t.add(m.text)
	if err != nil {
		return err
	}
	if complete {
		t.tx.LSN = m.lsn
		r.commit(t.tx)
	}
	return nil
}

// commit keeps a transaction unless it is a replay. The message of a COMMIT carries the end of its record.
func (r *Reader) commit(tx history.Tx) {
	if tx.LSN <= r.state().reached {
		return
	}
	if len(tx.Items) > 0 {
		tx.SeenAt = time.Now()
		r.keep(tx)
		if r.hook != nil {
			r.hook(tx)
		}
	}
	r.advance(tx.LSN)
}

func (r *Reader) keep(tx history.Tx) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.txs = append(r.txs, tx)
}

// advance moves the position, never back: after a crash the server starts again from where the slot was saved.
func (r *Reader) advance(lsn history.LSN) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if lsn > r.reached {
		r.reached = lsn
		r.wake()
	}
}

func (r *Reader) ended(err error, failed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err, r.failed = err, failed
	r.wake()
}

// wake tells those who wait to look again. The caller holds the lock.
func (r *Reader) wake() {
	close(r.changed)
	r.changed = make(chan struct{})
}
