package admin_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/admin"
)

// mostOfAPage is a page's 4 MB and the item that made it full, which may have one.
const mostOfAPage = 5<<20 + 100<<10

// walk reads all pages of a list, and holds each to its bounds.
func walk[T any](t *testing.T, list func(cursor string) (admin.Page[T], error)) (items, pages int) {
	t.Helper()
	for cursor := ""; ; pages++ {
		page, err := list(cursor)
		require.NoError(t, err)
		require.NotEmpty(t, page.Items)
		text, err := json.Marshal(page)
		require.NoError(t, err)
		require.Less(t, len(text), mostOfAPage)
		if items += len(page.Items); page.Next == "" {
			return items, pages + 1
		}
		cursor = page.Next
	}
}

// Lists of what is large have short pages, and nothing is missing.
func TestPagesAreBoundedInBytes(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	o.exec(t, `INSERT INTO outbox.subscriptions (name, url, filters, is_active)
		SELECT 'w' || g, 'http://localhost/', jsonb_build_object('a', repeat('x', 65000)), false FROM generate_series(1, 150) AS g`)
	items, pages := walk(t, func(cursor string) (admin.Page[admin.Webhook], error) {
		return o.desk().Webhooks(t.Context(), nil, admin.MaxLimit, cursor)
	})
	require.Equal(t, []int{150, 3}, []int{items, pages})

	o.exec(t, `INSERT INTO outbox.event_types (name, schema)
		SELECT 't' || g, jsonb_build_object('description', repeat('x', 1000000)) FROM generate_series(1, 12) AS g`)
	items, pages = walk(t, func(cursor string) (admin.Page[admin.EventType], error) {
		return o.desk().EventTypes(t.Context(), admin.MaxLimit, cursor)
	})
	require.Equal(t, []int{12, 3}, []int{items, pages})

	w := o.webhook(t, "", "a")
	event := o.attempts(t, w, 200)
	o.exec(t, "UPDATE outbox.events SET payload = jsonb_build_object('a', repeat('x', 70000)) WHERE id = $1", event)
	items, pages = walk(t, func(cursor string) (admin.Page[admin.Call], error) {
		return o.desk().Calls(t.Context(), w.ID, admin.CallFilter{Limit: admin.MaxLimit, Cursor: cursor})
	})
	require.Equal(t, []int{200, 4}, []int{items, pages})
	items, pages = walk(t, func(cursor string) (admin.Page[admin.Call], error) {
		return o.desk().Calls(t.Context(), w.ID, admin.CallFilter{Limit: 199, Cursor: cursor, Outcome: "success"})
	})
	require.Greater(t, items, 100)
	require.Less(t, items, 200)
	require.LessOrEqual(t, pages, 4)
}
