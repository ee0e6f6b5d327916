package judge

import (
	"maps"
	"slices"
	"time"

	"github.com/walhook/walhook/test/checker/history"
)

// compareWriters holds the WAL against what the writers know. A difference means that the checker itself is wrong.
func (j *judgement) compareWriters() {
	logged := make(map[int64]bool, len(j.written))
	for i := range j.h.Writes {
		w := &j.h.Writes[i]
		for _, n := range w.Kept {
			logged[n] = true
		}
		for _, n := range w.Undone {
			logged[n] = true
		}
		j.compareWrite(w)
	}
	for _, n := range slices.Sorted(maps.Keys(j.written)) {
		switch times := j.written[n]; {
		case n < 0 && times > j.own:
			j.find(history.Truth, time.Time{}, "%d events in the WAL have no number", times-j.own)
		case n < 0:
		case times > 1:
			j.find(history.Truth, time.Time{}, "event %d is in the WAL %d times", n, times)
		case !logged[n]:
			j.find(history.Truth, time.Time{}, "event %d is in the WAL, and no writer knows it", n)
		}
	}
}

func (j *judgement) compareWrite(w *history.Write) {
	kept := j.countWritten(w.Kept)
	complete := kept == len(w.Kept) && w.Outcome != history.RolledBack
	absent := kept == 0 && w.Outcome != history.Committed
	if !complete && !absent {
		j.find(history.Truth, w.At, "a transaction is %s, and the WAL has %d of its %d events: %v", w.Outcome, kept, len(w.Kept), some(w.Kept))
	}
	if undone := j.countWritten(w.Undone); undone > 0 {
		j.find(history.Truth, w.At, "the WAL has %d events whose savepoint was rolled back, of %v", undone, some(w.Undone))
	}
}

func (j *judgement) countWritten(numbers []int64) int {
	count := 0
	for _, n := range numbers {
		if j.written[n] > 0 {
			count++
		}
	}
	return count
}

// some keeps a finding readable.
func some(numbers []int64) []int64 { return numbers[:min(len(numbers), 10)] }
