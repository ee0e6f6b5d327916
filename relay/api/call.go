package api

import (
	"context"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/walhook/walhook/relay/admin"
)

// call is one request on its way.
type call struct {
	id      string // for the log and for who asks about a failure
	w       *answer
	request *http.Request
	route   string // method and path pattern, once it is known
	who     *admin.Principal
	desk    *admin.Desk
	body    []byte
	release func() // gives the body's memory back
}

func newCall(w http.ResponseWriter, r *http.Request) *call {
	return &call{id: uuid.NewString(), w: &answer{ResponseWriter: w}, request: r, release: func() {}}
}

// forgetBody gives the memory of the body to others. It may be called again.
func (c *call) forgetBody() {
	c.body = nil
	c.release()
	c.release = func() {}
}

// callKey is under which an operation finds its call: huma hands on nothing but the context.
type callKey struct{}

func (c *call) context() context.Context { return context.WithValue(c.request.Context(), callKey{}, c) }

func callOf(ctx context.Context) *call { return ctx.Value(callKey{}).(*call) }

// limitTime gives the client so long to send the rest of its request. The server sets the deadline anew for the next
// request of the connection.
func (c *call) limitTime(d time.Duration) { c.deadline(time.Now().Add(d)) }

// unlimitTime ends the limit when the body has arrived: a deadline that passes later would end the request.
func (c *call) unlimitTime() { c.deadline(time.Time{}) }

func (c *call) deadline(at time.Time) {
	_ = http.NewResponseController(c.w).SetReadDeadline(at) // not every server has one, and reading from a closed connection says so
}

// answerTime is how long a client may take to accept an answer that was waited for.
const answerTime = time.Minute

// mayTakeLong moves the server's limit for this answer behind so much work. The server sets it anew for the next request.
func (c *call) mayTakeLong(work time.Duration) {
	_ = http.NewResponseController(c.w).SetWriteDeadline(time.Now().Add(work + answerTime)) // not every server has one
}

// answer notes whether an answer has begun.
type answer struct {
	http.ResponseWriter
	begun bool
}

// WriteHeader begins the answer. What has begun keeps its status: huma tries to answer when a client is gone.
func (a *answer) WriteHeader(status int) {
	if a.begun {
		return
	}
	a.begun = true
	a.ResponseWriter.WriteHeader(status)
}

// Write goes on with the answer.
func (a *answer) Write(p []byte) (int, error) {
	a.begun = true
	return a.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
