package ui

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/walhook/walhook/relay/admin"
)

// loginForm is what login.html shows. A token is never sent back.
type loginForm struct {
	Next, Error string
	Alone       bool // a link with a token logs in by itself
}

// followedByHand reports a request that no other site can have made a browser send: a link from a terminal, say. Of another
// one nobody may be logged in unasked, who would work under a stranger's token without knowing. Browsers that do not say
// where a request comes from (they do not over plain HTTP, but to this machine) may come from anywhere.
func followedByHand(r *http.Request) bool {
	site := r.Header.Get("Sec-Fetch-Site")
	return site == "none" || site == "same-origin"
}

// maxNext is how long the path may be that somebody is sent back to after login, in bytes.
const maxNext = 2048

// local reports whether somebody may be sent to a path after login: it must lead to a page of ours, whatever a browser
// makes of it.
func local(next string) bool {
	if !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") || len(next) > maxNext {
		return false
	}
	for _, c := range next {
		if c <= ' ' || c == '\\' || c == 0x7f {
			return false
		}
	}
	to, err := url.Parse(next)
	return err == nil && to.Scheme == "" && to.Host == "" && plain(to.Path) && to.Path != "/login" && to.Path != "/logout"
}

// nextOf is where a login leads.
func nextOf(r *http.Request) string {
	if next := r.FormValue("next"); local(next) {
		return next
	}
	return "/"
}

func (u *UI) loginPage(w http.ResponseWriter, r *http.Request) error {
	if err := readFormOf(w, r, maxLoginForm); err != nil {
		return err
	}
	if _, err := u.enter(r); err == nil {
		http.Redirect(w, r, u.Prefix+nextOf(r), http.StatusSeeOther)
		return nil
	}
	u.forget(w, r)
	return u.showLogin(w, r, http.StatusOK, "")
}

func (u *UI) showLogin(w http.ResponseWriter, r *http.Request, status int, problem string) error {
	form := loginForm{Error: problem, Alone: followedByHand(r)}
	if next := nextOf(r); next != "/" {
		form.Next = next
	}
	return u.page(w, &visit{Request: r}, "login", view{Title: text("login.title"), Status: status, Data: form})
}

// login checks a token and keeps it in a cookie until the browser is closed.
func (u *UI) login(w http.ResponseWriter, r *http.Request) error {
	if err := readFormOf(w, r, maxLoginForm); err != nil {
		return err
	}
	token := strings.TrimSpace(r.PostForm.Get("token"))
	if token == "" {
		return u.showLogin(w, r, http.StatusUnprocessableEntity, text("login.empty"))
	}
	_, err := u.Gate.Enter(r.Context(), r.RemoteAddr, token)
	var e *admin.Error
	switch {
	case err == nil:
		http.SetCookie(w, cookie(r, sessionCookie, u.cookiePath(), sessionValue(token), 0))
		http.Redirect(w, r, u.Prefix+nextOf(r), http.StatusSeeOther)
		return nil
	case errors.As(err, &e) && e.Kind == admin.Unauthenticated:
		return u.showLogin(w, r, http.StatusUnauthorized, text("login.wrong"))
	case errors.As(err, &e) && e.Kind == admin.TooMany:
		setRetryAfter(w, e)
		return u.showLogin(w, r, http.StatusTooManyRequests, text("login.too_many", e.RetryAfter))
	}
	return err
}

// logout forgets the token in this browser; the token stays valid.
func (u *UI) logout(w http.ResponseWriter, r *http.Request) error {
	http.SetCookie(w, cookie(r, sessionCookie, u.cookiePath(), "", -1))
	setFlash(w, r, u.cookiePath(), text("login.out"))
	http.Redirect(w, r, u.Prefix+"/login", http.StatusSeeOther)
	return nil
}
