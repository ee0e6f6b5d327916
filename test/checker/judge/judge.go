// Package judge makes a verdict of a history: whether everything committed was delivered, nothing else was
// sent, and every duplicate has a fault that explains it. It is pure: the same history always gets the same
// verdict. It knows the contract and nothing of the relay's code.
package judge

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/walhook/walhook/test/checker/history"
	"github.com/walhook/walhook/test/checker/truth"
)

// Expected is a delivery that should have been made.
type Expected = truth.Expected

// Verdict is what came out. Deliveries = Delivered + Dead + Cancelled + Waiting + Otherwise + GivenUp + Lost.
type Verdict struct {
	Events     int `json:"events"`     // committed, whether anybody wanted them or not
	Deliveries int `json:"deliveries"` // expected
	Delivered  int `json:"delivered"`  // answered with 2xx at least once
	Dead       int `json:"dead"`       // dead letters at the end
	Cancelled  int `json:"cancelled"`  // the subscription was deleted first
	Waiting    int `json:"waiting"`    // held for an inactive or invalid subscription, or not drained
	Otherwise  int `json:"otherwise"`  // in a gap, and not for the subscription as it was when the event was made
	GivenUp    int `json:"given_up"`   // in a gap, and without a row, or as an operator chose
	Recovered  int `json:"recovered"`  // in a gap, and delivered all the same

	Gaps    map[string]int `json:"gaps"` // that relays recovered from, by the code they gave
	Lost    int            `json:"lost"`
	Phantom int            `json:"phantom"`

	Duplicates        int            `json:"duplicates"` // requests after one that had been received and answered with 2xx
	Explained         int            `json:"explained"`
	Unexplained       int            `json:"unexplained"`
	DuplicatesByClass map[string]int `json:"duplicates_by_class"` // the explained ones
	Kills             int            `json:"kills"`               // of relays; those of a set-up don't count
	DuplicatesPerKill float64        `json:"duplicates_per_kill"` // of those that a kill explains; pauses don't count

	Ordered         int `json:"ordered"` // expected deliveries to which an order is promised
	OrderViolations int `json:"order_violations"`
	Batches         int `json:"batches"` // requests with several deliveries
	Batched         int `json:"batched"` // deliveries that came in one of them

	// Seen counts, by what is promised and what struck before it came true, the deliveries that prove something.
	Seen map[string]int `json:"seen"`

	Findings []history.Finding    `json:"findings"` // at most maxDetails of a kind
	Counts   map[history.Kind]int `json:"counts"`   // all of them
}

// Clean reports that nothing is wrong.
func (v *Verdict) Clean() bool { return len(v.Counts) == 0 }

// maxDetails is how many findings of a kind are spelled out.
const maxDetails = 50

// Judge compares what happened with what is expected. It does not change the history.
func Judge(h *history.History, expected []Expected) Verdict {
	j := newJudgement(h)
	j.addExpected(expected)
	j.readGaps()
	j.addReplayed()
	j.compareWriters()
	j.readReceipts()
	j.checkBatches()
	j.readSnapshots()
	j.findLost()
	j.findDuplicates()
	j.checkOrder()
	j.checkPositions()
	j.countSeen()
	if h.DrainedAt.IsZero() {
		j.find(history.Stuck, h.StoppedAt, "not drained after everything was healed")
	}
	for _, f := range h.Findings {
		j.add(f)
	}
	return j.verdict
}

// judgement is the work on one verdict.
type judgement struct {
	h             *history.History
	verdict       Verdict
	txs           map[history.LSN]*history.Tx
	written       map[int64]int // event number -> how often the WAL has it
	own           int           // events of the relay's own, which have no number
	subscriptions map[uuid.UUID]*subscription
	faults        faults
	pairs         []*pair // in commit order
	byKey         map[pairKey]*pair
	byRow         map[rowKey]*pair
	byID          map[uuid.UUID]*pair // of deliveries that were received
	strange       map[rowKey]bool     // rows that nothing asks for
	batches       []*request          // with several deliveries, in the order of arrival
}

// pairKey names a delivery as a request does, its id aside.
type pairKey struct {
	subscription uuid.UUID
	number       int64
}

// pair is an event for a subscription, and what arrived of it.
type pair struct {
	Expected
	tx        *history.Tx
	to        *subscription
	gap       *history.Gap // that it lies in; nil: no stream missed it
	undecided bool         // it may be made and need not: see readGaps
	number    int64
	ids       []uuid.UUID // one, unless something is wrong
	receipts  []*arrival
	settled   *arrival     // the first one
	enveloped *arrival     // the first one in this format
	raw       *arrival     // the first one in the other
	recorded  time.Time    // of the snapshot that first had it as delivered; zero: none
	spilled   bool         // in a snapshot it waited and had not been tried
	batched   bool         // it came together with others
	replayed  bool         // an operator's replay had it
	pending   bool         // in the last snapshot
	dead      *history.Row // in the last snapshot
}

// String tells people which delivery it is.
func (p *pair) String() string {
	return fmt.Sprintf("event %d (%s, %s, commit %s) to subscription %s", p.number, p.Event.Type, p.Event.ID, p.LSN, p.Subscription)
}

func newJudgement(h *history.History) *judgement {
	j := &judgement{h: h, faults: newFaults(h.Faults), subscriptions: subscriptionsOf(h.Txs),
		txs: make(map[history.LSN]*history.Tx, len(h.Txs)), written: map[int64]int{}, byID: map[uuid.UUID]*pair{}, strange: map[rowKey]bool{}}
	j.verdict.Seen, j.verdict.Gaps = map[string]int{}, map[string]int{}
	j.verdict.Counts, j.verdict.DuplicatesByClass = map[history.Kind]int{}, map[string]int{}
	for i := range h.Txs {
		tx := &h.Txs[i]
		j.txs[tx.LSN] = tx
		for _, item := range tx.Items {
			if item.Event != nil {
				j.verdict.Events++
				j.written[item.Event.Number()]++
				if strings.HasPrefix(item.Event.Type, "walhook.") {
					j.own++
				}
			}
		}
	}
	return j
}

func (j *judgement) addExpected(expected []Expected) {
	j.verdict.Deliveries = len(expected)
	j.byKey, j.byRow = make(map[pairKey]*pair, len(expected)), make(map[rowKey]*pair, len(expected))
	j.pairs = make([]*pair, 0, len(expected))
	numbers := make(map[*history.Event]int64, len(expected)) // many deliveries have the same event
	for _, e := range expected {
		if _, known := numbers[e.Event]; !known {
			numbers[e.Event] = e.Event.Number()
		}
		p := &pair{Expected: e, tx: j.txs[e.LSN], to: j.subscriptions[e.Subscription], number: numbers[e.Event]}
		key, row := pairKey{e.Subscription, p.number}, rowKey{e.Subscription, e.Event.ID}
		if p.tx == nil || p.to == nil || p.number < 0 || j.byKey[key] != nil || j.byRow[row] != nil {
			j.find(history.Truth, time.Time{}, "%v is expected twice, or its transaction, subscription or number is unknown", p)
			continue
		}
		j.byKey[key], j.byRow[row] = p, p
		j.pairs = append(j.pairs, p)
	}
	slices.SortStableFunc(j.pairs, func(a, b *pair) int {
		return cmp.Or(cmp.Compare(a.LSN, b.LSN), cmp.Compare(a.Index, b.Index))
	})
}

func (j *judgement) find(kind history.Kind, at time.Time, format string, args ...any) {
	j.add(history.Finding{Kind: kind, At: at, Detail: fmt.Sprintf(format, args...)})
}

func (j *judgement) add(f history.Finding) {
	j.verdict.Counts[f.Kind]++
	if j.verdict.Counts[f.Kind] <= maxDetails {
		j.verdict.Findings = append(j.verdict.Findings, f)
	}
}

// lastSnapshot is what the tables held at the end; empty when they were never looked at.
func (j *judgement) lastSnapshot() history.Snapshot {
	if len(j.h.Snapshots) == 0 {
		return history.Snapshot{}
	}
	return j.h.Snapshots[len(j.h.Snapshots)-1]
}

// end is when nothing could happen any more.
func (j *judgement) end() time.Time {
	last := j.lastSnapshot().At
	if j.h.StoppedAt.After(last) {
		return j.h.StoppedAt
	}
	return last
}
