package api

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

// An answer that has begun keeps its status: what goes wrong behind that is no line of the log.
func TestAnAnswerBeginsOnce(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	a := &answer{ResponseWriter: &once{ResponseWriter: w, t: t}}
	a.WriteHeader(http.StatusOK)
	a.WriteHeader(http.StatusInternalServerError)
	require.Equal(t, http.StatusOK, w.Code)
}

type once struct {
	http.ResponseWriter
	t    *testing.T
	done bool
}

func (o *once) WriteHeader(status int) {
	require.False(o.t, o.done)
	o.done = true
	o.ResponseWriter.WriteHeader(status)
}
