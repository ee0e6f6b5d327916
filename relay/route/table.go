// Package route decides which subscriptions get an event. It is pure: no I/O, no clock, no goroutines.
// Whoever owns a Table applies configuration changes and matches events in the order of the log, so that
// every event is matched as of its own position.
package route

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/walhook/walhook/internal/fault"
	"github.com/walhook/walhook/relay/delivery"
)

// Table is the routing view as of one position. It is not safe for concurrent use: one goroutine owns it,
// and Match too needs it alone.
//
// Subscriptions are found by tenant and event type, then by one equality condition of their filters, so
// that an event's cost grows with what matches and hardly with what exists. Put and Delete cost what the
// one rule is large.
type Table struct {
	rules   map[uuid.UUID]rule
	invalid map[uuid.UUID]string
	buckets map[selector]*bucket
	cohorts map[cohortKey]*cohort
	filters map[string]*sharedFilter // by text
	event   document                 // scratch of Match
}

// rule is what is kept of a subscription's rule.
type rule struct {
	places   []place // none: inactive or invalid
	ordering delivery.Ordering
}

// place is where a cohort keeps a subscription's id.
type place struct {
	cohort *cohort
	at     int
}

type cohortKey struct {
	bucket *bucket
	filter *sharedFilter
}

// sharedFilter is a filter that any number of cohorts use.
type sharedFilter struct {
	*Filter
	text    string
	cohorts int
}

// New returns an empty table.
func New() *Table {
	return &Table{
		rules:   map[uuid.UUID]rule{},
		invalid: map[uuid.UUID]string{},
		buckets: map[selector]*bucket{},
		cohorts: map[cohortKey]*cohort{},
		filters: map[string]*sharedFilter{},
	}
}

// Len is the number of rules, those that match nothing included.
func (t *Table) Len() int { return len(t.rules) }

// Invalid returns why rules did not compile, by subscription. The map is the caller's.
func (t *Table) Invalid() map[uuid.UUID]string { return maps.Clone(t.invalid) }

// Put adds a rule, or replaces the one of the same subscription. An error means that its filters or event
// types do not compile: it names the key or the type and the remedy. The rule is then kept but matches
// nothing, and what it replaced matches nothing any more either. An inactive rule is checked too.
func (t *Table) Put(r delivery.Rule) error {
	t.Delete(r.SubscriptionID)
	t.rules[r.SubscriptionID] = rule{ordering: r.Ordering}
	filter, selectors, err := t.compile(&r)
	if err != nil {
		t.invalid[r.SubscriptionID] = err.Error()
		return fmt.Errorf("route subscription %s: %w", r.SubscriptionID, err)
	}
	if !r.Active {
		return nil
	}
	places := make([]place, len(selectors))
	for i, s := range selectors {
		c := t.cohort(t.bucket(s), filter)
		places[i] = place{c, len(c.ids)}
		c.ids = append(c.ids, r.SubscriptionID)
	}
	t.rules[r.SubscriptionID] = rule{places, r.Ordering}
	return nil
}

func (t *Table) compile(r *delivery.Rule) (*sharedFilter, []selector, error) {
	selectors, err := parseSelectors(r.Tenant, r.EventTypes)
	if err != nil {
		return nil, nil, err
	}
	if shared := t.filters[string(r.Filters)]; shared != nil {
		return shared, selectors, nil
	}
	filter, err := Compile(r.Filters)
	return &sharedFilter{Filter: filter, text: string(r.Filters)}, selectors, err
}

// bucket finds or makes the bucket of a selector. A new one gets strings of its own, since the rule's may
// be part of a larger buffer.
func (t *Table) bucket(s selector) *bucket {
	if b := t.buckets[s]; b != nil {
		return b
	}
	s.tenant, s.name = strings.Clone(s.tenant), strings.Clone(s.name)
	b := &bucket{selector: s}
	t.buckets[s] = b
	return b
}

func (t *Table) cohort(b *bucket, filter *sharedFilter) *cohort {
	key := cohortKey{b, filter}
	if c := t.cohorts[key]; c != nil {
		return c
	}
	c := &cohort{bucket: b, filter: filter}
	t.cohorts[key] = c
	b.add(c)
	filter.cohorts++
	t.filters[filter.text] = filter
	return c
}

// Delete removes a subscription's rule. There need not be one.
func (t *Table) Delete(id uuid.UUID) {
	for _, p := range t.rules[id].places {
		t.remove(p)
	}
	delete(t.rules, id)
	delete(t.invalid, id)
}

// remove fills the gap with the cohort's last id, whose place moves along.
func (t *Table) remove(p place) {
	c := p.cohort
	last := len(c.ids) - 1
	moved := c.ids[last]
	c.ids[p.at] = moved
	c.ids = c.ids[:last]
	places := t.rules[moved].places
	for i := range places {
		if places[i].cohort == c {
			places[i].at = p.at
		}
	}
	if last == 0 {
		t.removeCohort(c)
	}
}

// removeCohort forgets a cohort that is empty, and the bucket and the filter if it was their last.
func (t *Table) removeCohort(c *cohort) {
	delete(t.cohorts, cohortKey{c.bucket, c.filter})
	c.bucket.remove(c)
	if c.bucket.cohorts == 0 {
		delete(t.buckets, c.bucket.selector)
	}
	if c.filter.cohorts--; c.filter.cohorts == 0 {
		delete(t.filters, c.filter.text)
	}
}

// Ordering is what a subscription's rule promises about order.
func (t *Table) Ordering(id uuid.UUID) delivery.Ordering { return t.rules[id].ordering }

// Match appends the ids of the active subscriptions that get the event, each once, in the order of their
// ids. The event's payload is JSON text as jsonb writes it. Nothing is allocated except room in dst and
// what undoing escape sequences in the payload's strings takes.
func (t *Table) Match(dst []uuid.UUID, e *delivery.Event) []uuid.UUID {
	if fault.Bug(fault.FilterErrorDrops) && len(t.invalid) > 0 {
		return dst
	}
	start := len(dst)
	t.event.open(e.Payload)
	dst = t.matchIn(dst, selector{e.Tenant, e.Type, false})
	if !strings.HasPrefix(e.Type, ownTypes) {
		dst = t.matchIn(dst, selector{e.Tenant, "", true})
	}
	for i := range min(len(e.Type), maxTypeSize) {
		if e.Type[i] == '.' {
			dst = t.matchIn(dst, selector{e.Tenant, e.Type[:i+1], true})
		}
	}
	t.event.close()
	// The same subscription may have named the type and a prefix of it.
	slices.SortFunc(dst[start:], func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
	return dst[:start+len(slices.Compact(dst[start:]))]
}

func (t *Table) matchIn(dst []uuid.UUID, s selector) []uuid.UUID {
	if b := t.buckets[s]; b != nil {
		return b.match(dst, &t.event)
	}
	return dst
}
