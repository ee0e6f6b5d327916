package ui

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/walhook/walhook/relay/admin"
)

// How large a form may be, in bytes: that of somebody who is known, and a stranger's, who may have a token and a path to send.
const (
	maxForm      = 1 << 20
	maxLoginForm = 16 << 10
)

// formWithin is how long a browser may take to send a form.
const formWithin = 30 * time.Second

// policy lets a page load what comes from here and nothing else; no script or style can stand in a page.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// handler answers every path. Only the login and the static files are for strangers: to them all other paths look alike.
func (u *UI) handler() http.Handler {
	known := http.NewServeMux()
	for _, r := range u.routes() {
		known.Handle(r.pattern, u.guard(r))
	}
	known.Handle("/", u.guard(route{scope: admin.ScopeRead, handle: u.unknown}))
	public := http.NewServeMux()
	public.HandleFunc("GET /static/{hash}/{name}", serveStatic)
	public.Handle("GET /login", u.open(u.loginPage))
	public.Handle("POST /login", u.open(u.login))
	public.Handle("POST /logout", u.open(u.logout))
	public.Handle("/", known)
	return u.secured(public)
}

// secured is in front of everything: headers, paths that are no paths, requests from other sites, panics.
func (u *UI) secured(next http.Handler) http.Handler {
	stranger := u.guard(route{scope: admin.ScopeRead, handle: u.unknown})
	sites := http.NewCrossOriginProtection()
	sites.SetDenyHandler(u.open(func(w http.ResponseWriter, r *http.Request) error {
		return &pageError{http.StatusForbidden, text("error.403.origin")}
	}))
	checked := sites.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !plain(r.URL.Path) { // ServeMux would redirect, past our prefix
			stranger.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Type", "text/html; charset=utf-8")
		out := &response{ResponseWriter: w}
		defer u.rescue(out, r)
		checked.ServeHTTP(out, r)
	})
}

// plain reports whether ServeMux takes a path as it is.
func plain(p string) bool {
	if !strings.HasPrefix(p, "/") {
		return false
	}
	clean := path.Clean(p)
	return clean == p || clean+"/" == p
}

// guard lets in who may, and reads the form of who may.
func (u *UI) guard(r route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		who, err := u.enter(request)
		if err != nil {
			u.turnAway(w, request, err)
			return
		}
		v := &visit{Request: request, who: who, desk: u.Store.For(who)}
		if err := u.allowed(w, v, r); err != nil {
			u.fail(w, v, err)
			return
		}
		if err := u.seated(w, v, r); err != nil {
			u.fail(w, v, err)
		}
	})
}

// seated answers who looks at something when it is their turn. Pages that listen hold little, and are bounded by the hub.
func (u *UI) seated(w http.ResponseWriter, v *visit, r route) error {
	if (v.Method == http.MethodGet || v.Method == http.MethodHead) && !strings.HasSuffix(r.pattern, "/live") {
		leave, err := u.Gate.Seat(v.Context(), v.who)
		if err != nil {
			return err
		}
		defer leave()
	}
	return r.handle(w, v)
}

func (u *UI) allowed(w http.ResponseWriter, v *visit, r route) error {
	switch {
	case !v.who.May(r.scope):
		return &pageError{http.StatusForbidden, text("error.403.scope", string(r.scope))}
	case r.everywhere && !v.who.Everywhere():
		return &pageError{http.StatusForbidden, text("error.403.tenant")}
	}
	return readForm(w, v.Request)
}

// enter finds out who asks.
func (u *UI) enter(r *http.Request) (*admin.Principal, error) {
	token, ok := tokenOf(r)
	if !ok {
		return nil, errNobody
	}
	return u.Gate.Enter(r.Context(), r.RemoteAddr, token)
}

// errNobody is of a request without a token, which is no failed attempt.
var errNobody = &admin.Error{Kind: admin.Unauthenticated, Message: "log in first"}

// turnAway sends strangers to the login, where they asked for a page; scripts and forms are only told.
func (u *UI) turnAway(w http.ResponseWriter, r *http.Request, err error) {
	var e *admin.Error
	switch {
	case !errors.As(err, &e) || e.Kind != admin.Unauthenticated:
		u.fail(w, &visit{Request: r}, err)
	case (r.Method == http.MethodGet || r.Method == http.MethodHead) && !scripted(r):
		u.forget(w, r)
		to := u.Prefix + "/login"
		if next := r.URL.RequestURI(); next != "/" && local(next) {
			to += "?next=" + url.QueryEscape(next)
		}
		w.Header().Set("Location", to)
		w.Header().Del("Content-Type")
		w.WriteHeader(http.StatusSeeOther)
	default:
		w.Header().Del("Content-Type")
		w.WriteHeader(http.StatusUnauthorized)
	}
}

// scripted reports a request of htmx or of an event stream: a whole page would not help it.
func scripted(r *http.Request) bool {
	return r.Header.Get("HX-Request") != "" || strings.Contains(r.Header.Get("Accept"), "text/event-stream")
}

// readForm reads the body of a request within bounds of size and time, so that no handler needs to think of them.
func readForm(w http.ResponseWriter, r *http.Request) error { return readFormOf(w, r, maxForm) }

func readFormOf(w http.ResponseWriter, r *http.Request, most int64) error {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		r.Body = http.NoBody
		return nil
	}
	kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	if kind = strings.ToLower(strings.TrimSpace(kind)); kind != "application/x-www-form-urlencoded" && (kind != "" || r.ContentLength != 0) {
		return &pageError{http.StatusUnsupportedMediaType, text("error.415.text")}
	}
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Now().Add(formWithin))
	r.Body = http.MaxBytesReader(w, r.Body, most)
	err := r.ParseForm()
	if err == nil { // of what has no type, ParseForm has read nothing
		_, err = io.Copy(io.Discard, r.Body)
	}
	_ = c.SetReadDeadline(time.Time{}) // it would end what the form asks for, should that take longer
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return &pageError{http.StatusRequestEntityTooLarge, text("error.413.text")}
	case err != nil:
		return &pageError{http.StatusBadRequest, text("error.400.text")}
	}
	return nil
}
