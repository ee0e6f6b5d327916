package api

import (
	"net/http"
	"strings"

	"github.com/walhook/walhook/relay/admin"
)

// enter finds out who asks. Nothing of the body has been read yet.
func (s *server) enter(c *call) *problem {
	token, p := bearer(c.request)
	if p != nil {
		return p
	}
	who, err := s.Gate.Enter(c.request.Context(), c.request.RemoteAddr, token)
	if err != nil {
		return s.problem(c, err)
	}
	c.who, c.desk = who, s.Store.For(who)
	return nil
}

// bearer returns the token of a request (RFC 6750, section 2.1). More than one is nobody's.
func bearer(r *http.Request) (string, *problem) {
	given := r.Header.Values("Authorization")
	if len(given) != 1 {
		return "", unauthenticated("send one token, as in Authorization: Bearer TOKEN; walhook token create --name NAME makes one")
	}
	scheme, token, _ := strings.Cut(given[0], " ")
	if token = strings.TrimSpace(token); !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", unauthenticated("the scheme of Authorization must be Bearer, as in Authorization: Bearer TOKEN")
	}
	return token, nil
}

func unauthenticated(detail string) *problem {
	p := newProblem(http.StatusUnauthorized, "%s", detail)
	p.header("WWW-Authenticate", `Bearer realm="walhook"`)
	return p
}

// permit checks the scope that a route takes.
func (c *call) permit(scope admin.Scope) *problem {
	if scope != "" && c.who.May(scope) {
		return nil
	}
	p := newProblem(http.StatusForbidden, "this takes a token with the scope %s", scope)
	p.header("WWW-Authenticate", `Bearer realm="walhook", error="insufficient_scope", scope="`+string(scope)+`"`)
	return p
}
