package relay

import (
	"sync/atomic"
	"time"
)

// readyWithout is how long recording may fail before the relay says that it isn't ready: a connection that
// breaks is no news.
const readyWithout = 2 * time.Second

// trouble is what keeps the relay from recording, if anything does. It is kept apart from the state of the
// stream, which may flow all the while: Health is the worse of the two.
type trouble struct {
	now atomic.Pointer[failure]
}

type failure struct {
	since time.Time // of the first one in a row
	text  string
}

// note takes a failure, or with nil the end of all failures.
func (t *trouble) note(err error) {
	if err == nil {
		t.now.Store(nil)
		return
	}
	f := &failure{since: time.Now(), text: err.Error()}
	if before := t.now.Load(); before != nil {
		f.since = before.since
	}
	t.now.Store(f)
}

// exists reports whether the last try to record failed.
func (t *trouble) exists() bool { return t.now.Load() != nil }

// over makes a good state a bad one when nothing has been recorded for too long.
func (t *trouble) over(h Health) Health {
	if f := t.now.Load(); f != nil && h.State == Running && time.Since(f.since) > readyWithout {
		return Health{State: Reconnecting, Error: "nothing can be recorded: " + f.text}
	}
	return h
}

// recording takes the store's word on whether batches can be written. The queue waits while they can't.
func (o *ownership) recording(err error) {
	o.relay.recording.note(err)
	if err == nil {
		o.waker.wake()
	}
}
