package ui

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strconv"

	"github.com/walhook/walhook/relay/admin"
)

// pageError is an error of ours that has a page.
type pageError struct {
	status int
	text   string
}

func (e *pageError) Error() string { return e.text }

// failure is what error.html shows.
type failure struct {
	Heading, Text, Field, Request string
	Known                         bool // there is an overview to go back to
}

func (u *UI) unknown(http.ResponseWriter, *visit) error {
	return &pageError{http.StatusNotFound, text("error.404.text")}
}

// open serves strangers.
func (u *UI) open(handle func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := handle(w, r); err != nil {
			u.fail(w, &visit{Request: r}, err)
		}
	})
}

// fail shows what went wrong, unless something was sent already. What is not the caller's fault is logged, once.
func (u *UI) fail(w http.ResponseWriter, v *visit, err error) {
	status, f := describe(err)
	switch {
	case v.Context().Err() != nil: // whoever asked is gone, or this process is about to be
		status = http.StatusServiceUnavailable
		f = failure{Heading: text("error.503"), Text: text("error.503.text")}
	case status >= 500 && f.Text == "":
		f.Request = rand.Text()[:10]
		u.Log.Error().Str("request", f.Request).Str("method", v.Method).Str("route", v.Pattern).Int("status", status).Err(err).Msg("the dashboard could not answer")
		f.Text = text("error." + strconv.Itoa(status) + ".text")
	}
	u.showFailure(w, v, status, f, err)
}

func (u *UI) showFailure(w http.ResponseWriter, v *visit, status int, f failure, err error) {
	if out, ok := w.(*response); ok && out.started {
		return
	}
	h := w.Header()
	setRetryAfter(w, err)
	p := view{Title: f.Heading, Status: status}
	if status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "5")
		if v.Method == http.MethodGet {
			p.Refresh = 5
			f.Text += " " + text("error.503.retry")
		}
	}
	if scripted(v.Request) {
		send(w, status, "text/plain; charset=utf-8", []byte(f.Heading+": "+f.Text))
		return
	}
	f.Known = v.who != nil
	p.Data = f
	if err := u.page(w, v, "error", p); err != nil {
		u.Log.Error().Err(err).Msg("the error page cannot be rendered")
		send(w, status, "text/plain; charset=utf-8", []byte(f.Heading))
	}
}

// setRetryAfter tells programs when to come back, where that is known.
func setRetryAfter(w http.ResponseWriter, err error) {
	var e *admin.Error
	if errors.As(err, &e) && e.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(e.RetryAfter))
	}
}

// describe finds the status of an error and what to say of it. Text is empty where only the log may say more.
func describe(err error) (int, failure) {
	var (
		theirs *admin.Error
		ours   *pageError
	)
	status, f := http.StatusInternalServerError, failure{}
	switch {
	case errors.As(err, &ours):
		status, f.Text = ours.status, ours.text
	case errors.As(err, &theirs):
		status, f.Text, f.Field = theirs.Kind.Status(), theirs.Message, theirs.Field
		if status == 0 {
			status, f.Text = http.StatusInternalServerError, ""
		}
	case admin.Unavailable(err): // passes as soon as the database is there again
		status = http.StatusServiceUnavailable
	}
	f.Heading = text("error." + strconv.Itoa(status))
	return status, f
}

// rescue makes a panic an error page. Its value may hold what people sent, and stays out of the log.
func (u *UI) rescue(w *response, r *http.Request) {
	p := recover()
	if p == nil {
		return
	}
	if p == http.ErrAbortHandler { //nolint:errorlint // net/http compares it so
		panic(p)
	}
	id := rand.Text()[:10]
	u.Log.Error().Str("request", id).Str("method", r.Method).Str("route", r.Pattern).Str("panic", fmt.Sprintf("%T", p)).
		Str("stack", string(debug.Stack())).Msg("the dashboard panicked")
	f := failure{Heading: text("error.500"), Text: text("error.500.text"), Request: id}
	u.showFailure(w, &visit{Request: r}, http.StatusInternalServerError, f, nil)
}

// response remembers whether anything was sent.
type response struct {
	http.ResponseWriter
	started bool
}

func (w *response) WriteHeader(status int) {
	w.started = true
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(b []byte) (int, error) {
	w.started = true
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController through.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }
