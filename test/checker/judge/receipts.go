package judge

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/walhook/walhook/test/checker/history"
)

// arrival is one delivery in a request: the whole request, or an element of its array. Delivery, Type, Attempt and Body
// are the element's then.
type arrival struct {
	*history.Receipt
	in    *request
	place int // in the request
}

// request is what arrived at once.
type request struct {
	*history.Receipt
	elements []*arrival
	pairs    []*pair // of the elements; nil where nothing asks for one
}

// settles reports that after this request the delivery counts as done: also when the connection was broken after
// the status line.
func settles(r *arrival) bool { return r.Status >= 200 && r.Status < 300 }

// readReceipts finds the delivery of each request, in the order of arrival.
func (j *judgement) readReceipts() {
	receipts := make([]*history.Receipt, len(j.h.Receipts))
	for i := range receipts {
		receipts[i] = &j.h.Receipts[i]
	}
	slices.SortStableFunc(receipts, func(a, b *history.Receipt) int { return cmp.Compare(a.Seq, b.Seq) })
	for _, r := range receipts {
		j.readReceipt(r)
	}
}

func (j *judgement) readReceipt(r *history.Receipt) {
	q := &request{Receipt: r}
	if r.Batch == "" {
		q.elements = []*arrival{{Receipt: r, in: q}}
	} else if err := q.split(); err != nil {
		j.phantom(q.whole(), fmt.Sprintf("it is a batch, and its body is %v", err))
		return
	}
	for _, a := range q.elements {
		q.pairs = append(q.pairs, j.readArrival(a))
	}
	if r.Batch != "" {
		j.readBatch(q)
	}
}

// whole is the request as if it had one delivery.
func (q *request) whole() *arrival { return &arrival{Receipt: q.Receipt, in: q} }

// readArrival finds the delivery and checks what came; nil when nothing asks for it.
func (j *judgement) readArrival(r *arrival) *pair {
	body, err := parseBody(r.Body)
	if err != nil {
		j.phantom(r, fmt.Sprintf("its body is %v", err))
		return nil
	}
	p := j.byKey[pairKey{r.Subscription, body.number}]
	if p == nil {
		j.phantom(r, j.strangeness(r.Subscription, body.number))
		return nil
	}
	if since, state := p.to.closed(r.ArrivedAt); !since.IsZero() && r.ArrivedAt.Sub(since) > noticing && !j.faults.blinded(since, r.ArrivedAt) {
		j.phantom(r, fmt.Sprintf("sent to a subscription that has been %s since %s", state, since.Format(time.RFC3339Nano)))
	}
	if flaw := j.flaw(p, r, body); flaw != "" {
		j.find(history.Identity, r.ArrivedAt, "request %d, %v: %s", r.Seq, p, flaw)
	}
	p.receipts = append(p.receipts, r)
	if p.settled == nil && settles(r) {
		p.settled = r
	}
	return p
}

func (j *judgement) phantom(r *arrival, why string) {
	j.verdict.Phantom++
	j.find(history.Phantom, r.ArrivedAt, "request %d, delivery %s of type %q to subscription %s: %s", r.Seq, r.Delivery, r.Type, r.Subscription, why)
}

// strangeness tells why nothing asks for the request.
func (j *judgement) strangeness(subscription uuid.UUID, number int64) string {
	switch {
	case number < 0:
		return "its event has no number"
	case j.subscriptions[subscription] == nil:
		return "there never was such a subscription"
	case j.written[number] == 0:
		return fmt.Sprintf("event %d was never committed", number)
	}
	return fmt.Sprintf("event %d is not for this subscription", number)
}

// flaw is the first thing that is wrong with the request; empty when nothing is.
func (j *judgement) flaw(p *pair, r *arrival, b *body) string {
	row := p.Event
	switch {
	case !p.to.formats[b.format]:
		return fmt.Sprintf("its format is %s, which the subscription never had", b.format)
	case r.Type != row.Type:
		return fmt.Sprintf("X-Webhook-Event is %q, not %q", r.Type, row.Type)
	case r.Attempt < 1:
		return "X-Webhook-Attempt is not a number from 1"
	case !b.has(row.Payload):
		return fmt.Sprintf("the body is %s, and the payload should be %s", excerpt(b.text), excerpt(row.Payload))
	}
	if flaw := j.idFlaw(p, r); flaw != "" {
		return flaw
	}
	if b.format == envelope {
		if flaw := envelopeFlaw(p, r, b); flaw != "" {
			return flaw
		}
	}
	if flaw := j.settingsFlaw(p, r); flaw != "" {
		return flaw
	}
	if p.replayed && p.excused() { // what was received then and never recorded is not known any more
		return ""
	}
	return repeatFlaw(p, r, b.format)
}

// idFlaw checks that the delivery has one id on all attempts, and that no other delivery has it.
func (j *judgement) idFlaw(p *pair, r *arrival) string {
	id, err := uuid.Parse(r.Delivery)
	if err != nil {
		return fmt.Sprintf("X-Webhook-ID %q is no UUID", r.Delivery)
	}
	other := j.byID[id]
	if other == p {
		return ""
	}
	if other != nil {
		return fmt.Sprintf("X-Webhook-ID %s belongs to %v", id, other)
	}
	j.byID[id] = p
	p.ids = append(p.ids, id)
	if len(p.ids) > 1 {
		return fmt.Sprintf("X-Webhook-ID is %s, and was %s before", id, p.ids[0])
	}
	return ""
}

// writing is how long a transaction of the workload may take; a prepared one waits for its fate.
const writing = time.Minute

func envelopeFlaw(p *pair, r *arrival, b *body) string {
	if b.eventType != p.Event.Type {
		return fmt.Sprintf("event_type is %q, not %q", b.eventType, p.Event.Type)
	}
	if b.webhookID != r.Delivery {
		return fmt.Sprintf("webhook_id is %q and X-Webhook-ID %q", b.webhookID, r.Delivery)
	}
	if b.attempt != int64(r.Attempt) {
		return fmt.Sprintf("attempt is %d and X-Webhook-Attempt %d", b.attempt, r.Attempt)
	}
	at, err := time.Parse(time.RFC3339Nano, b.timestamp)
	if err != nil {
		return fmt.Sprintf("timestamp %q is not RFC 3339", b.timestamp)
	}
	// A replay of what was never attempted knows only when the event was written.
	if p.replayed && !at.After(p.tx.CommittedAt) && at.After(p.tx.CommittedAt.Add(-writing)) {
		return ""
	}
	if _, offset := at.Zone(); offset != 0 || !at.Truncate(time.Microsecond).Equal(p.tx.CommittedAt.Truncate(time.Microsecond)) {
		return fmt.Sprintf("timestamp is %s, not the time of the commit in UTC, %s", b.timestamp, p.tx.CommittedAt.UTC().Format(time.RFC3339Nano))
	}
	return ""
}

// repeatFlaw checks that all attempts have the same bytes, but for the envelope's counter.
func repeatFlaw(p *pair, r *arrival, format string) string {
	first := &p.enveloped
	if format == raw {
		first = &p.raw
	}
	if *first == nil {
		*first = r
		return ""
	}
	before := *first
	if sameBytes(before.Body, r.Body, format) {
		return ""
	}
	return fmt.Sprintf("the body differs from that of request %d: %s, before %s", before.Seq, excerpt(r.Body), excerpt(before.Body))
}
