package ui

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/admin"
)

// One tenant with very many pages leaves the others theirs, and their turns.
func TestOneTenantDoesNotTakeTheHub(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, _ := newTestHub(nil)
		nothing := func(context.Context) ([]message, error) { return nil, nil }
		greedy := &admin.Principal{Name: "greedy", Scopes: admin.Scopes, Tenant: new(string)}
		var pages []*screen
		for i := range maxPagesOfTenant {
			pages = append(pages, openScreen(h, greedy, "", "t"+strconv.Itoa(i), nothing))
		}
		synctest.Wait()
		more := openScreen(h, greedy, "", "more", nothing)
		require.ErrorContains(t, <-more.done, "pages")
		var looks, others atomic.Int64
		acme := "acme"
		pages = append(pages, openScreen(h, everybody, "", "overview", counted(&looks)),
			openScreen(h, &admin.Principal{Name: "acme", Scopes: admin.Scopes, Tenant: &acme}, "", "overview", counted(&others)))
		after(lookSpacing * 90)
		require.GreaterOrEqual(t, looks.Load(), int64(15))
		require.GreaterOrEqual(t, others.Load(), int64(15))
		for _, p := range pages {
			require.NoError(t, p.shut())
		}
		synctest.Wait()
		require.Empty(t, h.turns)
	})
}
