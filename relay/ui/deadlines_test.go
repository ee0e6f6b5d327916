package ui

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/admin"
)

// wire is a connection with deadlines. Writing past a deadline fails, as with a browser that hangs.
type wire struct {
	*httptest.ResponseRecorder
	reads, writes []time.Duration // from the time they were set; negative: none
	hangs         bool
	until         time.Time
}

func (w *wire) SetReadDeadline(t time.Time) error {
	w.reads = append(w.reads, left(t))
	return nil
}

func (w *wire) SetWriteDeadline(t time.Time) error {
	w.writes, w.until = append(w.writes, left(t)), t
	return nil
}

func left(t time.Time) time.Duration {
	if t.IsZero() {
		return -1
	}
	return time.Until(t)
}

func (w *wire) Write(b []byte) (int, error) {
	if !w.hangs {
		return w.ResponseRecorder.Write(b)
	}
	if w.until.IsZero() {
		return 0, errors.New("a write without a deadline")
	}
	<-time.After(time.Until(w.until))
	return 0, io.ErrClosedPipe
}

func TestAHangingBrowserHoldsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, _ := newTestHub(nil)
		w := &wire{ResponseRecorder: httptest.NewRecorder(), hangs: true}
		began := time.Now()
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/live", nil)
		err := h.serve(w, &visit{Request: r, who: everybody}, "x", func(context.Context) ([]message, error) { return nil, nil })
		require.NoError(t, err)
		require.Equal(t, streamWithin, time.Since(began))
		synctest.Wait()
		require.Zero(t, h.pages)

		w = &wire{ResponseRecorder: httptest.NewRecorder()}
		send(w, http.StatusOK, "text/plain", []byte("x"))
		require.Equal(t, []time.Duration{writeWithin, -1}, w.writes, "and the next request on the connection is free of it")
	})
}

func TestSlowFormsHaveADeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &wire{ResponseRecorder: httptest.NewRecorder()}
		r := httptest.NewRequestWithContext(t.Context(), "POST", "/x", strings.NewReader("a=b"))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
		require.NoError(t, readForm(w, r))
		require.Equal(t, "b", r.PostForm.Get("a"))
		require.Equal(t, []time.Duration{formWithin, -1}, w.reads, "what the form asks for may take longer")
	})
}

// TestStrangersFormsAreNotRead keeps what strangers send from costing anything.
func TestStrangersFormsAreNotRead(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	w := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(t.Context(), "POST", "/webhooks", io.MultiReader(strings.NewReader("a="), unread{t}))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	s.ServeHTTP(w, r)
	require.Equal(t, http.StatusUnauthorized, w.Code)
	r.AddCookie(&http.Cookie{Name: sessionCookie, Value: s.token(nil, admin.ScopeRead)})
	w = httptest.NewRecorder()
	s.ServeHTTP(w, r)
	require.Equal(t, http.StatusForbidden, w.Code)
}

type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, io.EOF
}
