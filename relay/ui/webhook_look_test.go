package ui

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/admin"
	"github.com/walhook/walhook/test/harness"
)

// countingDB counts what is asked of a database.
type countingDB struct {
	admin.DB
	queries atomic.Int64
}

func (c *countingDB) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	c.queries.Add(1)
	return c.DB.Query(ctx, sql, args...)
}

func (c *countingDB) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	c.queries.Add(1)
	return c.DB.QueryRow(ctx, sql, args...)
}

// A page that is open while nothing happens costs one small query a look: its calls are not read again.
func TestQuietPageCostsOneQueryALook(t *testing.T) {
	t.Parallel()
	db := &countingDB{DB: harness.Connect(t, harness.Database(t))}
	desk := admin.New(db, admin.Options{}).For(&admin.Principal{Scopes: admin.Scopes})
	name, address := "quiet", "http://localhost/"
	w, err := desk.CreateWebhook(t.Context(), admin.Change{Name: &name, URL: &address})
	require.NoError(t, err)
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/webhooks/x", nil)
	r.SetPathValue("id", w.ID.String())
	look, err := newWebhookLook(&visit{Request: r, desk: desk})
	require.NoError(t, err)
	first, err := look.look(t.Context())
	require.NoError(t, err)

	before := db.queries.Load()
	second, err := look.look(t.Context())
	require.NoError(t, err)
	require.LessOrEqual(t, db.queries.Load()-before, int64(1))
	require.Equal(t, first, second)
}
