package judge

import (
	"encoding/json"
	"net/url"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/walhook/walhook/test/checker/history"
)

// subscription is everything that a subscription ever was.
type subscription struct {
	versions []version // in commit order
	formats  map[string]bool
	timeout  time.Duration // the shortest it ever had; 0: unknown
	retries  int           // the fewest it ever had
	ordering string        // what it always promised at least
	delay    time.Duration // the shortest before a retry that it ever had
	batch    int           // the largest batch_size it ever had
}

// version is what a subscription was from one change to the next.
type version struct {
	lsn         history.LSN           // of its transaction
	index       int                   // in the transaction
	from, until time.Time             // until is zero for the last one
	changed     time.Time             // when the transaction began, if that is known
	row         *history.Subscription // nil: deleted
}

func subscriptionsOf(txs []history.Tx) map[uuid.UUID]*subscription {
	all := map[uuid.UUID]*subscription{}
	for i := range txs {
		for n, item := range txs[i].Items {
			switch {
			case item.Subscription != nil:
				change(all, item.Subscription.ID, &txs[i], n, item.Subscription)
			case item.Deleted != nil:
				change(all, *item.Deleted, &txs[i], n, nil)
			}
		}
	}
	return all
}

func change(all map[uuid.UUID]*subscription, id uuid.UUID, tx *history.Tx, index int, row *history.Subscription) {
	s := all[id]
	if s == nil {
		s = &subscription{formats: map[string]bool{}}
		all[id] = s
	}
	if n := len(s.versions); n > 0 {
		s.versions[n-1].until = tx.CommittedAt
	}
	v := version{lsn: tx.LSN, index: index, from: tx.CommittedAt, changed: tx.CommittedAt, row: row}
	if row != nil && !row.ChangedAt.IsZero() {
		v.changed = row.ChangedAt
	}
	s.versions = append(s.versions, v)
	if row != nil {
		s.widen(row)
	}
}

// widen takes into account what else the subscription may have been when something was sent.
func (s *subscription) widen(row *history.Subscription) {
	first := len(s.formats) == 0
	s.batch = max(s.batch, row.BatchSize)
	s.formats[row.Format] = true
	timeout := time.Duration(row.TimeoutMS) * time.Millisecond
	delay := time.Duration(row.RetryDelayMS) * time.Millisecond
	if first {
		s.timeout, s.retries, s.ordering, s.delay = timeout, row.MaxRetries, row.Ordering, delay
		return
	}
	s.delay = min(s.delay, delay)
	s.timeout, s.retries = min(s.timeout, timeout), min(s.retries, row.MaxRetries)
	if s.ordering == "none" || row.Ordering == "none" {
		s.ordering = "none"
	} else if row.Ordering == "key" {
		s.ordering = "key"
	}
}

// alive are the rows that an event may be sent with from one time to another: those that the subscription had at some
// moment of it, and none that was changed before the event, of which the stream tells. When it was deleted, that is the last
// row it had: a request may still have been under way.
func (s *subscription) alive(p *pair, from, to time.Time) []*history.Subscription {
	var rows []*history.Subscription
	var last *history.Subscription
	for i, v := range s.versions {
		if v.from.After(to) {
			break
		}
		if v.row == nil {
			continue
		}
		last = v.row
		over := i+1 < len(s.versions) && s.versions[i+1].before(&p.Expected) && !silent(p.gap)
		if !over && (v.until.IsZero() || !v.until.Before(from)) {
			rows = append(rows, v.row)
		}
	}
	if rows == nil && last != nil {
		rows = append(rows, last)
	}
	return rows
}

// changed reports that the subscription was changed within the interval.
func (s *subscription) changed(from, to time.Time) bool {
	return slices.ContainsFunc(s.versions, func(v version) bool { return !v.from.Before(from) && !v.from.After(to) })
}

// before reports that the change stands before the event in the WAL.
func (v *version) before(e *Expected) bool {
	return v.lsn < e.LSN || v.lsn == e.LSN && v.index < e.Index
}

// closed is since when the subscription had been inactive or deleted at a moment, and which of them it was then. The
// time is zero when it was active.
func (s *subscription) closed(at time.Time) (since time.Time, state string) {
	for _, v := range s.versions {
		switch {
		case v.from.After(at):
			return since, state
		case v.row != nil && v.row.Active:
			since, state = time.Time{}, ""
			continue
		case v.row != nil:
			state = "inactive"
		default:
			state = "deleted"
		}
		if since.IsZero() {
			since = v.from
		}
	}
	return since, state
}

// deleted reports that the subscription does not exist any more.
func (s *subscription) deleted() bool { return s.versions[len(s.versions)-1].row == nil }

// held reports that in the end nothing could be sent to the subscription, which exists.
func (s *subscription) held() bool {
	row := s.versions[len(s.versions)-1].row
	return row != nil && (!row.Active || !validURL(row.URL) || !validFilters(row.Filters))
}

func validURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

var operators = []string{"eq", "ne", "in", "gt", "gte", "lt", "lte", "exists", "prefix"}

// validFilters looks for operators that the contract does not have; this is how the workload makes a rule invalid.
func validFilters(text json.RawMessage) bool {
	var filters map[string]json.RawMessage
	if len(text) == 0 {
		return true
	}
	if json.Unmarshal(text, &filters) != nil {
		return false
	}
	for _, condition := range filters {
		var operands map[string]json.RawMessage
		if json.Unmarshal(condition, &operands) != nil {
			continue // not an object: a value or a list
		}
		for operator := range operands {
			if !slices.Contains(operators, operator) {
				return false
			}
		}
	}
	return true
}
