package admin_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/admin"
)

func TestDeadLetters(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	a, other, b, gone := o.webhook(t, "a", "w"), o.webhook(t, "a", "other"), o.webhook(t, "b", "w"), o.webhook(t, "a", "gone")
	began := time.Now().Add(-time.Minute)
	var letters []sent
	for i := range 24 {
		w := []admin.Webhook{a, other, b, gone}[i%4]
		kind := []string{"x", "y"}[i/4%2]
		at := began.Add(time.Duration(i) * time.Second)
		s := o.deliver(t, o.event(t, w.Tenant, kind, "{}", at), w, at)
		o.put(t, "dead_letters", s)
		letters = append(letters, s)
	}
	o.remove(t, gone)
	list := func(desk *admin.Desk, f admin.DeadFilter) (found []admin.DeadLetter) {
		found, _ = all(t, func(cursor string) (admin.Page[admin.DeadLetter], error) {
			f.Limit, f.Cursor = 3, cursor
			return desk.DeadLetters(t.Context(), f)
		})
		for i := 1; i < len(found); i++ {
			require.Greater(t, found[i-1].ID.String(), found[i].ID.String(), "the newest first, each once")
		}
		return found
	}
	found := list(o.desk(), admin.DeadFilter{})
	require.Len(t, found, 24)
	newest := found[0]
	require.Equal(t, letters[23].delivery, newest.ID)
	require.Equal(t, letters[23].event, newest.EventID)
	require.Empty(t, newest.Webhook, "it was deleted")
	require.Equal(t, []any{"y", "k", "a", 4, "it failed"}, []any{newest.Type, newest.Key, newest.Tenant, newest.Attempts, newest.LastError})
	require.WithinDuration(t, time.Now(), newest.DiedAt, time.Minute)
	require.Len(t, list(o.desk("a"), admin.DeadFilter{}), 18)
	require.Len(t, list(o.desk("b"), admin.DeadFilter{}), 6)
	require.Empty(t, list(o.desk("c"), admin.DeadFilter{}))
	require.Len(t, list(o.desk(), admin.DeadFilter{Type: "y"}), 12)
	require.Len(t, list(o.desk("a"), admin.DeadFilter{Webhook: &a.ID, Type: "y"}), 3)
	require.Len(t, list(o.desk("a"), admin.DeadFilter{Webhook: &gone.ID}), 6)
	require.Empty(t, list(o.desk("b"), admin.DeadFilter{Webhook: &a.ID}))

	_, err := o.desk().DeadLetters(t.Context(), admin.DeadFilter{Type: "\x00"})
	requireError(t, err, admin.Invalid, "type")
	_, err = o.desk().DeadLetters(t.Context(), admin.DeadFilter{Cursor: "x"})
	requireError(t, err, admin.Invalid, "cursor")
	_, err = o.desk().DeadLetters(t.Context(), admin.DeadFilter{Limit: 501})
	requireError(t, err, admin.Invalid, "limit")

	for _, n := range []int{-1, 1001} {
		_, err := o.desk().RedeliverDead(t.Context(), admin.DeadFilter{}, n)
		requireError(t, err, admin.Invalid, "limit")
	}
	redeliver := func(desk *admin.Desk, f admin.DeadFilter, most int) int {
		n, err := desk.RedeliverDead(t.Context(), f, most)
		require.NoError(t, err)
		return n
	}
	require.Zero(t, redeliver(o.desk("b"), admin.DeadFilter{Webhook: &a.ID}, 0))
	require.Equal(t, 2, redeliver(o.desk("a"), admin.DeadFilter{Webhook: &a.ID}, 2))
	require.Equal(t, "2", o.text(t, "SELECT count(*)::text FROM outbox.deliveries WHERE id = ANY ($1)", []uuid.UUID{letters[0].delivery, letters[4].delivery}), "the oldest")
	require.Equal(t, 4, redeliver(o.desk("a"), admin.DeadFilter{Webhook: &a.ID}, 0))
	require.Equal(t, 6, redeliver(o.desk("b"), admin.DeadFilter{}, 0))
	require.Equal(t, 6, redeliver(o.desk(), admin.DeadFilter{}, 1000))
	require.Len(t, list(o.desk(), admin.DeadFilter{}), 6, "those of the deleted webhook stay")
}

// What cannot be redelivered, or is being redelivered by another, is left out.
func TestRedeliverDeadSkips(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	w := o.webhook(t, "", "w")
	var letters []sent
	for range 4 {
		s := o.deliver(t, o.event(t, "", "x", "{}", time.Now()), w, time.Now())
		o.put(t, "dead_letters", s)
		letters = append(letters, s)
	}
	o.put(t, "deliveries", letters[1])
	o.exec(t, "UPDATE outbox.deliveries SET lease_owner = 'x'") // being attempted
	tx, err := o.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(t.Context()) }()
	_, err = tx.Exec(t.Context(), "SELECT FROM outbox.dead_letters WHERE id = $1 FOR UPDATE", letters[2].delivery)
	require.NoError(t, err)
	n, err := o.desk().RedeliverDead(t.Context(), admin.DeadFilter{}, 0)
	require.NoError(t, err)
	require.Equal(t, 2, n)
	require.Equal(t, "2", o.text(t, "SELECT count(*)::text FROM outbox.deliveries WHERE lease_owner IS NULL"))
	require.Equal(t, "2", o.text(t, "SELECT count(*)::text FROM outbox.dead_letters"))
}

// A search for what is not there ends, and goes on where it ended.
func TestSearchesAmongDeadLettersAreBounded(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	w := o.webhook(t, "a", "w")
	o.wait(t, "dead_letters", w, 20_500)
	o.exec(t, "UPDATE outbox.dead_letters SET type = 'rare' WHERE id IN (SELECT id FROM outbox.dead_letters ORDER BY id LIMIT 1)")
	for _, f := range []admin.DeadFilter{{Type: "rare"}, {Type: "none"}} {
		found, pages := all(t, func(cursor string) (admin.Page[admin.DeadLetter], error) {
			f.Cursor = cursor
			return o.desk().DeadLetters(t.Context(), f)
		})
		require.Equal(t, 2, pages)
		require.Equal(t, f.Type == "rare", len(found) == 1)
	}
	found, pages := all(t, func(cursor string) (admin.Page[admin.DeadLetter], error) {
		return o.desk().DeadLetters(t.Context(), admin.DeadFilter{Webhook: &w.ID, Type: "rare", Cursor: cursor})
	})
	require.Equal(t, 1, pages, "those of a webhook are found by index")
	require.Len(t, found, 1)
}
