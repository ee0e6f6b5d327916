package ui

import (
	"encoding/base64"
	"net/http"
	"strings"
	"unicode/utf8"
)

// flashCookie carries what was done to the page that is shown next.
const flashCookie = "walhook_notice"

// flashLimit keeps a notice well below what browsers take as a cookie, in bytes.
const flashLimit = 1000

func setFlash(w http.ResponseWriter, r *http.Request, path, notice string) {
	if notice == "" {
		return
	}
	if len(notice) > flashLimit {
		notice = strings.ToValidUTF8(notice[:flashLimit], "") + "…"
	}
	http.SetCookie(w, cookie(r, flashCookie, path, base64.RawURLEncoding.EncodeToString([]byte(notice)), 60))
}

// takeFlash returns the notice, which is gone afterwards. Whatever else a cookie may hold is none.
func takeFlash(w http.ResponseWriter, r *http.Request, path string) string {
	c, err := r.Cookie(flashCookie)
	if err != nil {
		return ""
	}
	http.SetCookie(w, cookie(r, flashCookie, path, "", -1))
	b, err := base64.RawURLEncoding.DecodeString(c.Value)
	if err != nil || !utf8.Valid(b) || len(b) > 2*flashLimit {
		return ""
	}
	return string(b)
}

// cookie makes one that scripts do not see and that no other site's page sends. maxAge is in seconds; 0: until the browser
// is closed; negative: now.
func cookie(r *http.Request, name, path, value string, maxAge int) *http.Cookie {
	return &http.Cookie{
		Name: name, Value: value, Path: path, MaxAge: maxAge,
		HttpOnly: true, SameSite: http.SameSiteStrictMode,
		Secure: r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https"),
	}
}

func (u *UI) cookiePath() string {
	if u.Prefix == "" {
		return "/"
	}
	return u.Prefix
}
