package receive

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/checker/history"
)

// answered gives a request of the given context the answer of a behaviour.
func answered(ctx context.Context, w http.ResponseWriter, behaviour Behaviour) (*exchange, bool) {
	request := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", nil)
	e := &exchange{w: w, r: request, receipt: history.Receipt{Behaviour: string(behaviour)}}
	return e, e.answer()
}

func TestNoStatusForAClientThatHasGone(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, behaviour := range []Behaviour{OK, Slow, Error, Busy, Hang, Early} {
		w := httptest.NewRecorder()
		e, reusable := answered(ctx, w, behaviour)
		require.False(t, reusable, behaviour)
		require.Zero(t, e.receipt.Status, behaviour)
		require.NotZero(t, e.receipt.AnsweredAt, behaviour)
		require.Zero(t, w.Body.Len(), behaviour)
	}
}

// brokenWriter takes everything and cannot send it.
type brokenWriter struct{ *httptest.ResponseRecorder }

func (brokenWriter) FlushError() error { return errors.New("broken pipe") }

func TestNoStatusForAResponseThatWasNotWritten(t *testing.T) {
	t.Parallel()
	for _, behaviour := range []Behaviour{OK, Slow, Error, Busy, Early} {
		e, reusable := answered(t.Context(), brokenWriter{httptest.NewRecorder()}, behaviour)
		require.False(t, reusable, behaviour)
		require.Zero(t, e.receipt.Status, behaviour)
	}
}
