package api

import (
	"errors"
	"net/http"
	"runtime"
	"runtime/debug"
	"strconv"

	"github.com/walhook/walhook/relay/admin"
)

// problem turns an error into what the client gets. One that is not the client's is logged here, once, without what was
// sent: the request's id leads from the answer to the log.
func (s *server) problem(c *call, err error) *problem {
	var p *problem
	if errors.As(err, &p) {
		return p
	}
	var known *admin.Error
	if errors.As(err, &known) && known.Kind.Status() != 0 {
		return asked(c, known)
	}
	if c.request.Context().Err() != nil {
		return newProblem(http.StatusServiceUnavailable, "the request was given up") // nobody reads it
	}
	p = newProblem(http.StatusInternalServerError, "something is wrong on our side: the log has it under this request_id")
	if admin.Unavailable(err) {
		p = newProblem(http.StatusServiceUnavailable, "the database cannot be reached now: try again")
		p.header("Retry-After", "5")
	}
	p.RequestID = c.id
	s.Log.Error().Err(err).Str("request_id", c.id).Str("route", c.route).Int("status", p.Status).Msg("a request of the API failed")
	return p
}

// asked is the problem with what was asked for.
func asked(c *call, e *admin.Error) *problem {
	p := newProblem(e.Kind.Status(), "%s", e.Error())
	if e.Field != "" {
		p.Errors = []detail{{Location: c.place(e.Field), Message: e.Message}}
	}
	switch e.Kind {
	case admin.Unauthenticated:
		p.header("WWW-Authenticate", `Bearer realm="walhook", error="invalid_token"`)
	case admin.TooMany:
		p.header("Retry-After", strconv.Itoa(max(1, e.RetryAfter)))
	}
	return p
}

// place says where a field of a request is: who looks has parameters, who changes has a body.
func (c *call) place(field string) string {
	if c.request.Method == http.MethodGet || c.request.Method == http.MethodHead {
		return "query." + field
	}
	return "body." + field
}

// recover answers for an operation that panicked. The value of a panic may hold what was sent, unless the runtime made it.
func (s *server) recover(c *call) {
	v := recover()
	if v == nil {
		return
	}
	err, _ := v.(error)
	if errors.Is(err, http.ErrAbortHandler) {
		panic(v)
	}
	event := s.Log.Error().Str("request_id", c.id).Str("route", c.route).Bytes("stack", debug.Stack())
	if e, ok := v.(runtime.Error); ok {
		event = event.Err(e)
	}
	event.Msg("a request of the API panicked")
	if c.w.begun {
		panic(http.ErrAbortHandler) // the client must see that the answer is cut short
	}
	p := newProblem(http.StatusInternalServerError, "something is wrong on our side: the log has it under this request_id")
	p.RequestID = c.id
	p.write(c.w)
}
