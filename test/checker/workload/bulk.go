package workload

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/walhook/walhook/test/checker/history"
)

// TenantOfBulk keeps what Huge and Big write from every subscription but one, which takes a single bucket.
const (
	TenantOfBulk = "bulk"
	buckets      = 200
	takenBucket  = 7
)

// Huge commits one transaction of so many rows, of which one in 200 is delivered, to one subscription. An error
// means that it is not known to be committed; the outcome is logged in any case.
func (w *Workload) Huge(ctx context.Context, rows int) error {
	last := w.numbers.Add(int64(rows))
	first := last - int64(rows) + 1
	write := history.Write{Kept: make([]int64, rows)}
	for i := range write.Kept {
		write.Kept[i] = first + int64(i)
	}
	return w.bulk(ctx, write, func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, `INSERT INTO outbox.events (type, tenant, payload)
			SELECT 'bulk.row', $1, jsonb_build_object('n', n, 'bucket', n % $2::bigint)
			FROM generate_series($3::bigint, $4::bigint) AS n`, TenantOfBulk, buckets, first, last)
		return err
	})
}

// Big commits one event whose payload has a text of so many bytes; the table takes 10 MB in all. It is delivered
// to the subscription of Huge. Errors are as in Huge.
func (w *Workload) Big(ctx context.Context, bytes int) error {
	n := w.numbers.Add(1)
	random := w.stream(bulkStream + uint64(n))
	text := make([]byte, bytes) // at random, so that it cannot be compressed away
	for i := range text {
		text[i] = 'a' + byte(random.IntN(26))
	}
	return w.bulk(ctx, history.Write{Kept: []int64{n}}, func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, `INSERT INTO outbox.events (type, tenant, payload)
			VALUES ('bulk.big', $1, jsonb_build_object('n', $2::bigint, 'bucket', $3::int, 'note', $4::text))`,
			TenantOfBulk, n, takenBucket, string(text))
		return err
	})
}

// Late calls f within a transaction that has written a few events, some in subtransactions, and then commits it. They are
// delivered to the subscription of Huge. Errors are as in Huge, or those of f.
func (w *Workload) Late(ctx context.Context, f func() error) error {
	const rows = 3
	last := w.numbers.Add(rows)
	write := history.Write{Kept: []int64{last - 2, last - 1, last}}
	return w.bulk(ctx, write, func(ctx context.Context, conn *pgx.Conn) error {
		for _, n := range write.Kept {
			_, err := conn.Exec(ctx, fmt.Sprintf(`SAVEPOINT s; INSERT INTO outbox.events (type, tenant, payload)
				VALUES ('bulk.late', '%s', '{"n": %d, "bucket": %d}'); RELEASE s`, TenantOfBulk, n, takenBucket))
			if err != nil {
				return err
			}
		}
		return f()
	})
}

func (w *Workload) bulk(ctx context.Context, write history.Write, do work) error {
	s := session{url: w.o.URL}
	if err := s.open(ctx); err != nil {
		return err
	}
	defer s.close()
	outcome, err := w.transact(ctx, &s, commit, write, do)
	if err == nil && outcome != history.Committed {
		err = fmt.Errorf("a transaction of %d events: %s", len(write.Kept), outcome)
	}
	return err
}
