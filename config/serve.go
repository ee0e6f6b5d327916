package config

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// pathPrefix is made of the characters that no program on the way writes in another manner (RFC 3986, unreserved).
var pathPrefix = regexp.MustCompile(`^(/[A-Za-z0-9._~-]+)+$`)

// ownPaths are taken at the root, whatever the prefix.
var ownPaths = []string{"/healthz", "/readyz", "/metrics"}

// checkPathPrefix wants a path that stands before others. None is allowed.
func checkPathPrefix(prefix string) error {
	segments := strings.Split(prefix, "/")
	switch {
	case prefix == "":
		return nil
	case slices.Contains(ownPaths, prefix):
		return fmt.Errorf("%q is a page of the relay itself: use another one, as in /walhook", prefix)
	case len(prefix) > 255, !pathPrefix.MatchString(prefix), slices.Contains(segments, "."), slices.Contains(segments, ".."):
		return fmt.Errorf("%q is no prefix of paths: begin with /, end without it, and use letters, digits, - . _ ~ and single /, as in /walhook", prefix)
	}
	return nil
}

// checkMetricsListen is checkListen, with nothing allowed.
func checkMetricsListen(address string) error {
	if address == "" {
		return nil
	}
	return checkListen(address)
}

// checkAPIToken wants what nobody guesses and every client can send. It never shows the value. A URL would be shown in
// other places, without its password only.
func checkAPIToken(token string) error {
	const least, most = 20, 255
	switch {
	case token == "":
		return nil
	case len(token) < least || len(token) > most:
		return fmt.Errorf("the value has %d characters: give %d to %d, as openssl rand -hex 32 makes them", len(token), least, most)
	case strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return errors.New("the value has characters that are no printable ASCII, or spaces: make one with openssl rand -hex 32")
	case strings.Contains(token, "://"):
		return errors.New("the value is a URL: make a token with openssl rand -hex 32")
	}
	return nil
}
