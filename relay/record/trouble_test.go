package record_test

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/record"
)

// with returns a store with options of the test's own.
func (l *ledger) with(o record.Options) *record.Store {
	o.Slot, o.Owner = "s", record.Owner("s", 0)
	s := record.NewStore(o, func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, l.db.Config().ConnString()) })
	l.t.Cleanup(s.Close)
	return s
}

// A large event whose receivers all fail is written once for each of them, and is in memory once.
func TestBatchOfLargeRowsIsNotGatheredInMemory(t *testing.T) {
	l := newLedger(t)
	payload := append(append([]byte{'"'}, bytes.Repeat([]byte{'x'}, 9<<20)...), '"')
	e := &delivery.Event{ID: uuid.New(), Type: "x", Payload: payload, CreatedAt: noon, CommittedAt: noon, Position: at(0x100, 1)}
	l.finish(failed, l.enter(e, 60)...)
	b := l.Cut(false)
	require.Len(t, b.Puts, 60)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	require.NoError(t, l.store.Record(t.Context(), b))
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(64<<20))
	require.Equal(t, 60, l.count("deliveries WHERE octet_length(payload) = 2 + 9 * 1048576"))
}

// Rows of all sizes arrive whole, wherever they are cut into pieces.
func TestRowsOfAllSizes(t *testing.T) {
	l := newLedger(t)
	var sizes []int
	for _, buffer := range []int{64 << 10, 65536 - 5, 2 * (64 << 10)} {
		for n := buffer - 300; n < buffer+20; n += 7 {
			sizes = append(sizes, n)
		}
	}
	var all []*delivery.Delivery
	want := map[uuid.UUID]int{}
	for i, n := range sizes {
		e := &delivery.Event{ID: uuid.New(), Type: "x", Payload: bytes.Repeat([]byte{'a' + byte(i%26)}, n), CreatedAt: noon, CommittedAt: noon, Position: at(0x100, uint64(i+1))}
		d := l.enter(e, 1)
		want[d[0].ID] = n
		all = append(all, d...)
	}
	l.finish(failed, all...)
	require.NoError(t, l.record())
	rows, err := l.db.Query(t.Context(), "SELECT id, octet_length(payload) FROM outbox.deliveries WHERE payload = repeat(left(payload, 1), octet_length(payload))")
	require.NoError(t, err)
	got := map[uuid.UUID]int{}
	var id uuid.UUID
	var n int
	_, err = pgx.ForEachRow(rows, []any{&id, &n}, func() error { got[id] = n; return nil })
	require.NoError(t, err)
	require.Equal(t, want, got)
}

// When a row is due the database's clock decides, and this machine's may be another one.
func TestClocksThatDiffer(t *testing.T) {
	for _, ahead := range []time.Duration{10 * time.Minute, -10 * time.Minute} {
		l := newLedger(t)
		s := l.with(record.Options{Log: zerolog.Nop(), Now: func() time.Time { return time.Now().Add(-ahead) }})
		put, moved, underWay := l.real(at(0x100, 1), 1)[0], l.real(at(0x100, 2), 1)[0], l.real(at(0x100, 3), 1)[0]
		l.lanes.underWay[underWay] = true
		l.finish(failed, put)
		l.Decline(moved)
		require.NoError(t, s.Record(t.Context(), l.cut(true)))
		l.exec("UPDATE outbox.deliveries SET next_attempt_at = now(), lease_owner = $2 WHERE id = $1", moved.ID, record.Owner("s", 0))
		l.Released([]*delivery.Delivery{moved})
		require.NoError(t, s.Record(t.Context(), l.cut(false)))
		for d, due := range map[*delivery.Delivery]time.Duration{put: time.Minute, moved: 0, underWay: 330 * time.Second} {
			var next time.Time
			require.NoError(t, l.db.QueryRow(t.Context(), "SELECT next_attempt_at FROM outbox.deliveries WHERE id = $1", d.ID).Scan(&next))
			require.WithinDuration(t, noon.Add(ahead+due), next, 10*time.Second)
		}
	}
}

// Every failure is told to whoever watches, and its end. The log has it once, however often it is tried.
func TestTroubleIsTold(t *testing.T) {
	l := newLedger(t)
	var log bytes.Buffer
	var told []error
	tries, away := 0, errors.New("connection refused")
	s := record.NewStore(record.Options{Slot: "s", Log: zerolog.New(&log), Trouble: func(err error) { told = append(told, err) }},
		func(ctx context.Context) (*pgx.Conn, error) {
			if tries++; tries <= 3 {
				return nil, away
			}
			return pgx.Connect(ctx, l.db.Config().ConnString())
		})
	t.Cleanup(s.Close)
	for i := range uint64(2) {
		l.finish(delivered, l.real(at(0x100, i+1), 1)...)
		require.NoError(t, s.Record(t.Context(), l.cut(false)))
	}
	require.Equal(t, []error{away, away, away, nil}, told)
	require.Equal(t, 1, strings.Count(log.String(), "recording failed"), log.String())
	require.Equal(t, 1, strings.Count(log.String(), "recording works again"), log.String())
	require.Equal(t, 2, l.count("attempts"))
}
