package judge

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/walhook/walhook/test/checker/history"
)

// mixed is the X-Webhook-Event of a batch whose events differ in type.
const mixed = "batch"

// split makes arrivals of the elements of an array, which are envelopes.
func (q *request) split() error {
	var texts []json.RawMessage
	if err := json.Unmarshal(q.Body, &texts); err != nil {
		return fmt.Errorf("no JSON array: %w", err)
	}
	if len(texts) == 0 {
		return errors.New("empty")
	}
	for i, text := range texts {
		b, err := parseBody(text)
		if err != nil {
			return err
		}
		element := *q.Receipt
		element.Body, element.Delivery, element.Type, element.Attempt = text, b.webhookID, b.eventType, int(b.attempt)
		q.elements = append(q.elements, &arrival{Receipt: &element, in: q, place: i})
	}
	return nil
}

// ids names what the request is made of, in its order.
func (q *request) ids() string {
	all := make([]string, len(q.elements))
	for i, a := range q.elements {
		all[i] = a.Delivery
	}
	return strings.Join(all, " ")
}

// several reports that the request has more than one delivery.
func (q *request) several() bool { return len(q.elements) > 1 }

// readBatch checks what the headers say of the whole.
func (j *judgement) readBatch(q *request) {
	if flaw := q.flaw(); flaw != "" {
		j.find(history.Batch, q.ArrivedAt, "request %d, %d deliveries to subscription %s: %s", q.Seq, len(q.elements), q.Subscription, flaw)
	}
	if !q.several() {
		return
	}
	j.verdict.Batches++
	j.batches = append(j.batches, q)
	for _, p := range q.pairs {
		if p != nil && !p.batched {
			p.batched = true
			j.verdict.Batched++
		}
	}
}

// flaw is the first thing that is wrong with a batch as such; empty when nothing is.
func (q *request) flaw() string {
	types, attempt := map[string]bool{}, 0
	for _, a := range q.elements {
		types[a.Type] = true
		attempt = max(attempt, a.Attempt)
	}
	kind := q.elements[0].Type
	if len(types) > 1 {
		kind = mixed
	}
	switch {
	case q.Batch != strconv.Itoa(len(q.elements)):
		return fmt.Sprintf("X-Webhook-Batch is %q", q.Batch)
	case q.Type != kind:
		return fmt.Sprintf("X-Webhook-Event is %q, not %q", q.Type, kind)
	case q.Attempt != attempt:
		return fmt.Sprintf("X-Webhook-Attempt is %d, and the highest attempt %d", q.Attempt, attempt)
	case !q.several() && q.Delivery != q.elements[0].Delivery:
		return fmt.Sprintf("X-Webhook-ID is %s, and its only delivery is %s", q.Delivery, q.elements[0].Delivery)
	}
	return q.compositionFlaw()
}

// compositionFlaw checks which deliveries go together: each once, in commit order, as many as the subscription ever
// wanted at most.
func (q *request) compositionFlaw() string {
	seen := map[*pair]bool{}
	var last *pair
	for _, p := range q.pairs {
		switch {
		case p == nil:
			continue // a finding already
		case seen[p]:
			return fmt.Sprintf("%v is in it twice", p)
		case len(q.pairs) > p.to.batch:
			return fmt.Sprintf("batch_size was %d at most", p.to.batch)
		case last != nil && p.before(last) && !p.replayed && !last.replayed && (p.gap == nil || p.gap != last.gap):
			return fmt.Sprintf("%v stands behind %v", p, last)
		}
		seen[p], last = true, p
	}
	return ""
}

// before reports that the event was committed before another one.
func (p *pair) before(other *pair) bool {
	return p.LSN < other.LSN || p.LSN == other.LSN && p.Index < other.Index
}

// checkBatches checks that the same deliveries, and only they, make the same X-Webhook-ID, and that those which failed
// together were tried again together.
func (j *judgement) checkBatches() {
	byID, byIDs := map[string]*request{}, map[string]*request{}
	for _, q := range j.batches {
		ids := q.ids()
		if other := byID[q.Delivery]; other != nil && other.ids() != ids {
			j.findBatch(q, "X-Webhook-ID %s is also that of request %d, which has other deliveries", q.Delivery, other.Seq)
		} else if other = byIDs[ids]; other != nil && other.Delivery != q.Delivery {
			j.findBatch(q, "X-Webhook-ID is %s, and was %s in request %d with the same deliveries", q.Delivery, other.Delivery, other.Seq)
		} else if id, err := uuid.Parse(q.Delivery); err != nil || j.byID[id] != nil {
			j.findBatch(q, "X-Webhook-ID %q is no UUID of its own", q.Delivery)
		}
		byID[q.Delivery], byIDs[ids] = q, q
		if !settles(q.whole()) {
			j.checkRetry(q)
		}
	}
}

func (j *judgement) findBatch(q *request, format string, args ...any) {
	j.find(history.Batch, q.ArrivedAt, "request %d, %d deliveries to subscription %s: %s", q.Seq, len(q.elements), q.Subscription, fmt.Sprintf(format, args...))
}

// checkRetry looks for where the deliveries of a batch that failed came next.
func (j *judgement) checkRetry(q *request) {
	for i, p := range q.pairs {
		if p == nil {
			continue
		}
		next := p.after(q.elements[i])
		if next != nil && next.in.ids() != q.ids() && !j.mayPart(q, next.ArrivedAt) {
			j.findBatch(q, "it failed, and %v came again in request %d, with %d deliveries that are not the same", p, next.Seq, len(next.in.elements))
			return
		}
	}
}

// after is the arrival that followed one; nil when none did.
func (p *pair) after(a *arrival) *arrival {
	i := slices.Index(p.receipts, a)
	if i < 0 || i+1 == len(p.receipts) {
		return nil
	}
	return p.receipts[i+1]
}

// mayPart reports that something happened between a failed batch and a later request after which its deliveries need
// not go together: they are due before all of them must be recorded, the failure was not recorded, or the attempt broken off and did not count, leases ended, somebody
// sent one of them by itself, or the settings changed.
func (j *judgement) mayPart(q *request, until time.Time) bool {
	from, to := q.ArrivedAt.Add(-onTheWire), j.subscriptions[q.Subscription]
	if to.delay <= time.Duration(j.h.SpillAfterMS)*time.Millisecond {
		return true
	}
	if j.faults.any(from, until, killed, paused, postgres, gapped) {
		return true
	}
	return j.faults.latest(from, until, func(f *fault) bool {
		return f.Class == "sigterm" || slices.ContainsFunc(q.pairs, func(p *pair) bool { return p != nil && f.asks(p.ids...) })
	}) != nil || to.changed(from, until)
}
