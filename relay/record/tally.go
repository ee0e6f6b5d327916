package record

import (
	"encoding/binary"
	"math/big"
	"math/bits"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/walhook/walhook/relay/delivery"
)

// Tally counts what was recorded of the events of one minute, for outbox.recorded.
type Tally struct {
	Events  int64
	Matched int64  // deliveries that were made of them
	Digest  Digest // of their ids
}

// Digest is the sum of the last 48 bits of ids. Applications choose ids, so that 64 bits may be too few for it.
type Digest struct{ high, low uint64 }

// add adds another tally of the same minute.
func (t *Tally) add(o *Tally) {
	t.Events += o.Events
	t.Matched += o.Matched
	var carry uint64
	t.Digest.low, carry = bits.Add64(t.Digest.low, o.Digest.low, 0)
	t.Digest.high += o.Digest.high + carry
}

// String writes the sum in decimal, as Postgres reads a numeric.
func (d Digest) String() string {
	sum := new(big.Int).SetUint64(d.high)
	return sum.Lsh(sum, 64).Or(sum, new(big.Int).SetUint64(d.low)).String()
}

// tallyOf counts one event.
func tallyOf(e *delivery.Event, deliveries int) Tally {
	return Tally{Events: 1, Matched: int64(deliveries), Digest: Digest{low: lastBits(e.ID)}}
}

func lastBits(id uuid.UUID) uint64 { return binary.BigEndian.Uint64(id[8:]) & (1<<48 - 1) }

// minuteOf is the time's minute, in seconds since 1970.
func minuteOf(t time.Time) int64 {
	s := t.Unix()
	return s - (s%60+60)%60
}

// count moves an item's tally into the batch. Neighbours are mostly of the same minute.
func (b *Batch) count(minute int64, t *Tally) {
	if b.counted == nil || b.minute != minute {
		if b.Tallies == nil {
			b.Tallies = map[int64]*Tally{}
		}
		if b.Tallies[minute] == nil {
			b.Tallies[minute] = &Tally{}
		}
		b.minute, b.counted = minute, b.Tallies[minute]
	}
	b.counted.add(t)
}

// queueTallies adds to outbox.recorded, in one statement and in the order of the minutes.
func queueTallies(q *pgx.Batch, tallies map[int64]*Tally) {
	if len(tallies) == 0 {
		return
	}
	minutes := make([]int64, 0, len(tallies))
	for m := range tallies {
		minutes = append(minutes, m)
	}
	slices.Sort(minutes)
	n := len(minutes)
	times, digests := make([]time.Time, n), make([]string, n)
	events, matched := make([]int64, n), make([]int64, n)
	for i, m := range minutes {
		t := tallies[m]
		times[i], digests[i], events[i], matched[i] = time.Unix(m, 0), t.Digest.String(), t.Events, t.Matched
	}
	q.Queue(`INSERT INTO outbox.recorded AS r (minute, events, digest, matched)
		SELECT minute, events, digest::numeric, matched
		FROM unnest($1::timestamptz[], $2::bigint[], $3::text[], $4::bigint[]) AS t(minute, events, digest, matched)
		ON CONFLICT (minute) DO UPDATE SET events = r.events + excluded.events, digest = r.digest + excluded.digest,
			matched = r.matched + excluded.matched`, times, events, digests, matched)
}
