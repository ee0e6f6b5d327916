package api

import (
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/walhook/walhook/relay/admin"
)

// public are the routes that need no token: they hold no secrets and are of use before one has a token. Everything else is
// behind the guard.
var public = []string{
	"GET " + Base + "/openapi.json",
	"GET " + Base + "/docs",
	"GET " + Base + "/docs/style.css",
}

// methods are those that routes may have.
var methods = []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}

// route is one method of one path.
type route struct {
	pattern string // method and path, without a trailing slash
	scope   admin.Scope
	body    bodyKind
	handler http.Handler
}

func (r *route) public() bool { return slices.Contains(public, r.pattern) }

func (r *route) serve(c *call) {
	request := c.request.WithContext(c.context())
	request.URL = cleaned(request)
	r.handler.ServeHTTP(c.w, request)
}

// routes are all that there are.
type routes struct {
	mux *http.ServeMux
	all map[string]*route
}

func newRoutes() *routes { return &routes{mux: http.NewServeMux(), all: map[string]*route{}} }

// add registers a route. A route that is not public and has no scope is a mistake that must not be served.
func (t *routes) add(r *route, handler http.Handler) {
	if r.public() == slices.Contains(admin.Scopes, r.scope) {
		panic("route " + r.pattern + " must be public or have a scope, and not both")
	}
	r.handler = t.mux
	t.all[r.pattern] = r
	t.mux.Handle(r.pattern, handler)
}

// HandleFunc and ServeHTTP make it a mux for huma, which registers operations whose route has been announced. The
// description has paths with trailing slashes, the mux has none: there one would mean all paths below.
func (t *routes) HandleFunc(pattern string, handler func(http.ResponseWriter, *http.Request)) {
	pattern = strings.TrimSuffix(pattern, "/")
	r := t.all[pattern]
	if r == nil {
		panic("route " + pattern + " has not been announced")
	}
	delete(t.all, pattern)
	t.add(r, http.HandlerFunc(handler))
}

func (t *routes) ServeHTTP(w http.ResponseWriter, r *http.Request) { t.mux.ServeHTTP(w, r) }

// announce says what the guard and the intake must know about an operation before huma registers it.
func (t *routes) announce(method, path string, scope admin.Scope, body bodyKind) {
	pattern := method + " " + Base + strings.TrimSuffix(path, "/")
	t.all[pattern] = &route{pattern: pattern, scope: scope, body: body}
}

// find returns the route of a request, or the problem that there is none. It compares the path as it was sent: no route has
// anything in it that needs escaping, and what is not written plainly means nothing here.
func (t *routes) find(r *http.Request) (*route, *problem) {
	if plain := cleaned(r).Path; r.URL.RawPath != "" || plain != path.Clean(plain) {
		return nil, noSuchPath(r)
	}
	if found := t.match(r, r.Method); found != nil {
		return found, nil
	}
	var allowed []string
	for _, m := range methods {
		if t.match(r, m) != nil {
			allowed = append(allowed, m)
		}
	}
	if len(allowed) == 0 {
		return nil, noSuchPath(r)
	}
	p := newProblem(http.StatusMethodNotAllowed, "%s is not for this path, which takes %s", short(r.Method), strings.Join(allowed, ", "))
	p.header("Allow", strings.Join(allowed, ", "))
	return nil, p
}

// match returns the route of a path for a method; a HEAD is a GET without an answer's body.
func (t *routes) match(r *http.Request, method string) *route {
	_, pattern := t.mux.Handler(&http.Request{Method: method, URL: cleaned(r), Host: r.Host})
	return t.all[pattern]
}

func noSuchPath(r *http.Request) *problem {
	return newProblem(http.StatusNotFound, "there is no %s: openapi.json lists the paths", short(r.URL.Path))
}

// checkQuery refuses what would be dropped silently: a query that cannot be read, and a parameter that stands twice.
func checkQuery(query string) *problem {
	values, err := url.ParseQuery(query)
	if err != nil {
		return wrong(http.StatusBadRequest, "query", "cannot be read: escape &, ;, %% and + in values")
	}
	for name, given := range values {
		if len(given) > 1 {
			return wrong(http.StatusBadRequest, "query."+short(name), "is there twice: remove one")
		}
	}
	return nil
}

// cleaned is a request's URL without the one trailing slash that every path may have.
func cleaned(r *http.Request) *url.URL {
	u := *r.URL
	u.Path = strings.TrimSuffix(u.Path, "/")
	return &u
}
