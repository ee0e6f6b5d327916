// Package api is the REST API under /api/v1: what relay/admin can do, as HTTP. Its description (OpenAPI 3.1) is generated from
// the same table of operations that serves the requests, and so is the documentation page.
//
// A request goes through guard (whose token, which scope), intake (the body, within limits of size, time and memory) and the
// operation, in this order. What is not in the table is refused.
package api

import (
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/rs/zerolog"

	"github.com/walhook/walhook/relay/admin"
)

// Base is the path that every route begins with, behind Options.Prefix.
const Base = "/api/v1"

// Options are what the API is made with.
type Options struct {
	Store   *admin.Store
	Gate    *admin.Gate
	Prefix  string // path prefix that it is mounted under, as /walhook; empty: none. The handler gets paths without it.
	Version string // of the program, for the description
	Log     zerolog.Logger
}

// New makes the API's handler, for paths that begin with /api/v1/.
func New(o Options) http.Handler { return build(o) }

// server is the API: the table of routes and what stands in front of it.
type server struct {
	Options
	routes *routes
	api    huma.API
	intake *intake
}

// build makes the server. It panics when the table of operations is wrong, which a test would notice.
func build(o Options) *server {
	s := &server{Options: o, routes: newRoutes(), intake: newIntake()}
	s.api = s.describe()
	s.webhooks()
	s.actions()
	s.insight()
	s.events()
	s.operate()
	s.openAnswers()
	s.publish()
	return s
}

// ServeHTTP answers a request. Whatever happens, the answer is never stored and never guessed at.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	c := newCall(w, r)
	defer c.limitTime(s.intake.time) // for the rest of a body that nobody has read
	defer s.recover(c)
	if p := s.serve(c); p != nil {
		p.write(c.w)
	}
}

// serve is the order of things. A problem is one that nobody has told the client yet.
func (s *server) serve(c *call) *problem {
	c.limitTime(s.intake.time)
	found, problem := s.routes.find(c.request)
	if problem == nil {
		c.route = found.pattern
	}
	if problem == nil && found.public() {
		found.serve(c)
		return nil
	}
	if p := s.enter(c); p != nil {
		return p
	}
	if problem != nil { // what there is and is not is for those who may come in
		return problem
	}
	if p := c.permit(found.scope); p != nil {
		return p
	}
	if p := checkQuery(c.request.URL.RawQuery); p != nil {
		return p
	}
	defer c.forgetBody()
	if p := s.intake.read(c, found.body); p != nil {
		return p
	}
	return s.seated(c, found)
}

// seated serves who looks at something, which may be much, when it is their turn.
func (s *server) seated(c *call, found *route) *problem {
	if c.request.Method == http.MethodGet || c.request.Method == http.MethodHead {
		leave, err := s.Gate.Seat(c.request.Context(), c.who)
		if err != nil {
			return s.problem(c, err)
		}
		defer leave()
	}
	found.serve(c)
	return nil
}
