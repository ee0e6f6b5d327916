package ui

import (
	"encoding/base64"
	"net/http"
	"strings"
)

// sessionCookie holds the token of who is logged in: the dashboard has no sessions of its own, and a revoked token ends
// them all.
const sessionCookie = "walhook_session"

// maxToken is how long a token may be, in bytes.
const maxToken = 1024

// encoded begins a cookie whose token has characters that no cookie carries.
const encoded = "b64."

// sessionValue is what the cookie holds of a token.
func sessionValue(token string) string {
	if !strings.HasPrefix(token, encoded) && cookieSafe(token) {
		return token
	}
	return encoded + base64.RawURLEncoding.EncodeToString([]byte(token))
}

// tokenOf returns the token of a request.
func tokenOf(r *http.Request) (string, bool) {
	c, err := r.Cookie(sessionCookie)
	if err != nil {
		return "", false
	}
	token := c.Value
	if value, ok := strings.CutPrefix(token, encoded); ok {
		b, err := base64.RawURLEncoding.DecodeString(value)
		if err != nil {
			return "", false
		}
		token = string(b)
	}
	return token, token != "" && len(token) <= maxToken
}

// cookieSafe reports whether a cookie carries a token unchanged.
func cookieSafe(token string) bool {
	for i := range len(token) {
		if c := token[i]; c <= ' ' || c >= 0x7f || strings.IndexByte("\",;\\", c) >= 0 {
			return false
		}
	}
	return true
}

// forget takes a cookie away whose token is good for nothing: it would count as a failed attempt each time.
func (u *UI) forget(w http.ResponseWriter, r *http.Request) {
	if _, err := r.Cookie(sessionCookie); err == nil {
		http.SetCookie(w, cookie(r, sessionCookie, u.cookiePath(), "", -1))
	}
}
