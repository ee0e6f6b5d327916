package route

import (
	"slices"

	"github.com/google/uuid"
	"github.com/tidwall/gjson"
)

// bucket holds the subscriptions of one tenant that ask for the same event type or prefix. Inside, they
// are grouped into cohorts, the subscriptions with the same filter, so that a filter is judged once
// however many share it.
//
// A cohort whose filter has an equality condition hangs under the values that this condition wants, and is
// looked at only for payloads with one of them; the others are in rest and looked at for every event of
// the bucket. The index only narrows the choice: the whole filter is judged afterwards.
type bucket struct {
	selector selector
	cohorts  int // how many there are
	rest     list
	fields   []*field
}

// field is the index over one payload field within a bucket.
type field struct {
	path  path
	lists map[value]*list
}

// value is a scalar as a map key. Two numbers that differ by less than a float64 can tell share one.
type value struct {
	kind gjson.Type
	near float64
	text string
}

func (s *scalar) value() value {
	if s.kind == gjson.Number {
		return value{kind: s.kind, near: s.near}
	}
	return value{kind: s.kind, text: s.text}
}

// list is a set of cohorts in no particular order.
type list struct {
	cohorts []*cohort
	field   *field // nil for a bucket's rest
	value   value
}

// cohort is the subscriptions of one bucket that share one filter, in no particular order.
type cohort struct {
	bucket *bucket
	filter *sharedFilter
	ids    []uuid.UUID
	spots  []spot
}

// spot is where a list mentions a cohort.
type spot struct {
	list *list
	at   int
}

const (
	// maxIndexedFields bounds what one event costs a bucket: every indexed field is looked up in the
	// payload once.
	maxIndexedFields = 256
	// maxIndexedValues bounds how often one cohort is mentioned. A condition with more values is not
	// indexed.
	maxIndexedValues = 16
)

// match appends the ids of the subscriptions whose filters the document meets.
func (b *bucket) match(dst []uuid.UUID, d *document) []uuid.UUID {
	dst = b.rest.match(dst, d)
	for _, f := range b.fields {
		found, ok := d.lookup(&f.path)
		if !ok {
			continue
		}
		s, ok := scalarOf(found)
		if !ok {
			continue
		}
		if l := f.lists[s.value()]; l != nil {
			dst = l.match(dst, d)
		}
	}
	return dst
}

func (l *list) match(dst []uuid.UUID, d *document) []uuid.UUID {
	for _, c := range l.cohorts {
		if c.filter.matches(d) {
			dst = append(dst, c.ids...)
		}
	}
	return dst
}

// add enters a cohort under one of its equality conditions, or in rest if it has none.
func (b *bucket) add(c *cohort) {
	b.cohorts++
	condition := b.choose(c.filter.conditions)
	if condition == nil {
		b.rest.add(c)
		return
	}
	f := b.field(&condition.path)
	if f == nil {
		f = &field{path: condition.path, lists: map[value]*list{}}
		b.fields = append(b.fields, f)
	}
	for i := range condition.operands {
		f.add(condition.operands[i].value(), c)
	}
}

// choose picks the condition to index: the one under which an event is least likely to come upon the
// cohort among others. A list's crowd divided by the number of lists of its field estimates that, if all
// values are equally frequent. So a field that tells subscriptions apart wins over one that most of them
// share, without any statistics, and a crowd under one value of the former does not spill into the latter.
func (b *bucket) choose(conditions []condition) *condition {
	var best *condition
	var bestCrowd, bestLists int
	for i := range conditions {
		c := &conditions[i]
		if c.operator != oneOf || len(c.operands) > maxIndexedValues {
			continue
		}
		f := b.field(&c.path)
		if f == nil && len(b.fields) == maxIndexedFields {
			continue
		}
		crowd, lists := f.crowd(c.operands)
		if best == nil || crowd*bestLists < bestCrowd*lists {
			best, bestCrowd, bestLists = c, crowd, lists
		}
	}
	return best
}

func (b *bucket) field(p *path) *field {
	for _, f := range b.fields {
		if f.path.text == p.text {
			return f
		}
	}
	return nil
}

// crowd is how many cohorts would be mentioned under the operands if one more were, and how many lists
// the field would have then. The field may be nil, which is one without lists.
func (f *field) crowd(operands []scalar) (cohorts, lists int) {
	cohorts = 1
	if f == nil {
		return cohorts, len(operands)
	}
	lists = len(f.lists)
	for i := range operands {
		if l := f.lists[operands[i].value()]; l != nil {
			cohorts += len(l.cohorts)
		} else {
			lists++
		}
	}
	return cohorts, lists
}

// add mentions a cohort under a value, unless the value before, which may be the same to a float64,
// brought it there already.
func (f *field) add(v value, c *cohort) {
	l := f.lists[v]
	if l == nil {
		l = &list{field: f, value: v}
		f.lists[v] = l
	}
	if n := len(l.cohorts); n == 0 || l.cohorts[n-1] != c {
		l.add(c)
	}
}

func (l *list) add(c *cohort) {
	c.spots = append(c.spots, spot{l, len(l.cohorts)})
	l.cohorts = append(l.cohorts, c)
}

// remove takes a cohort out of every list, and the lists and fields that this leaves empty out of the
// bucket.
func (b *bucket) remove(c *cohort) {
	b.cohorts--
	for _, s := range c.spots {
		s.list.remove(s.at)
		f := s.list.field
		if f == nil || len(s.list.cohorts) > 0 {
			continue
		}
		delete(f.lists, s.list.value)
		if len(f.lists) == 0 {
			b.fields = slices.DeleteFunc(b.fields, func(o *field) bool { return o == f })
		}
	}
	c.spots = nil
}

// remove fills the gap with the last cohort, whose spot moves along.
func (l *list) remove(at int) {
	last := len(l.cohorts) - 1
	moved := l.cohorts[last]
	l.cohorts[at] = moved
	l.cohorts[last] = nil
	l.cohorts = l.cohorts[:last]
	for i := range moved.spots {
		if moved.spots[i].list == l {
			moved.spots[i].at = at
		}
	}
}
