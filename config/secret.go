package config

import (
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
)

// Secret is the URL of a database or a proxy that no formatter, logger or encoder prints with its password, or another secret, of
// which they print nothing.
type Secret string

const redacted = "[redacted]"

// urlSchemes are those of databases and proxies. Anything else may be a secret that only looks like a URL, as a token that
// begins with slashes.
var urlSchemes = []string{"postgres", "postgresql", "http", "https", "socks5"}

// String returns the URL with "redacted" in place of each password, or only "[redacted]" for whatever could
// be read in another way: key=value strings, a password with unescaped '/', '?' or '#'.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	u, err := url.Parse(string(s))
	if err != nil || !slices.Contains(urlSchemes, u.Scheme) || u.Host == "" || u.Opaque != "" || u.Fragment != "" || strings.Contains(u.RequestURI(), "@") {
		return redacted
	}
	if _, has := u.User.Password(); has {
		u.User = url.UserPassword(u.User.Username(), "redacted")
	}
	query := u.Query()
	for name := range query {
		if strings.Contains(strings.ToLower(name), "pass") {
			query.Set(name, "redacted")
		}
	}
	u.RawQuery = query.Encode()
	return u.String()
}

// Format hides the passwords from every verb of fmt, wrong ones included.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalText hides the passwords from encoders.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }
