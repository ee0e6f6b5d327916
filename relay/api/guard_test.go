package api_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/admin"
	"github.com/walhook/walhook/relay/api"
)

// contract is every operation that there is, with the scope that it takes.
var contract = map[string]admin.Scope{
	"POST /webhooks/":                   admin.ScopeManage,
	"GET /webhooks/":                    admin.ScopeRead,
	"GET /webhooks/{id}":                admin.ScopeRead,
	"PUT /webhooks/{id}":                admin.ScopeManage,
	"PATCH /webhooks/{id}":              admin.ScopeManage,
	"DELETE /webhooks/{id}":             admin.ScopeManage,
	"POST /webhooks/{id}/activate":      admin.ScopeManage,
	"POST /webhooks/{id}/deactivate":    admin.ScopeManage,
	"POST /webhooks/{id}/test":          admin.ScopeManage,
	"POST /webhooks/{id}/rotate-secret": admin.ScopeManage,
	"POST /webhooks/{id}/replay":        admin.ScopeManage,
	"GET /webhooks/{id}/stats":          admin.ScopeRead,
	"GET /webhooks/{id}/calls":          admin.ScopeRead,
	"GET /webhooks/system/stats":        admin.ScopeRead,
	"POST /webhooks/events/trigger":     admin.ScopePublish,
	"GET /event-types":                  admin.ScopeRead,
	"POST /event-types":                 admin.ScopeManage,
	"GET /replication":                  admin.ScopeRead,
	"POST /deliveries/{id}/redeliver":   admin.ScopeManage,
}

// open are the routes that need no token.
var open = []string{"GET /docs", "GET /docs/style.css", "GET /openapi.json"}

// described lists the operations of the description.
func (s *service) described() map[string]admin.Scope {
	s.Helper()
	var d struct {
		Paths map[string]map[string]struct {
			Security []map[string][]admin.Scope
		}
	}
	require.NoError(s, json.Unmarshal(s.do("", "GET", "/openapi.json", "").wants(s, 200).text, &d))
	all := map[string]admin.Scope{}
	for path, methods := range d.Paths {
		for method, o := range methods {
			require.Len(s, o.Security, 1)
			all[strings.ToUpper(method)+" "+path] = o.Security[0]["bearer"][0]
		}
	}
	return all
}

func TestOperationsAreTheContracts(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	require.Equal(t, contract, s.described())
}

func TestEveryRouteIsGuarded(t *testing.T) {
	t.Parallel()
	s := newService(t)
	tokens := map[admin.Scope]string{}
	for _, scope := range admin.Scopes {
		tokens[scope] = s.token(nil, scope)
	}
	known := map[string]admin.Scope{}
	for route, scope := range s.described() {
		known[strings.TrimSuffix(route, "/")] = scope
	}
	for _, r := range api.Routes(s.handler) {
		method, path, _ := strings.Cut(r.Pattern, " ")
		path = strings.TrimPrefix(path, "/api/v1")
		if r.Public {
			require.Contains(t, open, method+" "+path)
			continue
		}
		require.Equal(t, known[method+" "+path], r.Scope, "every route of the mux is described")
		delete(known, method+" "+path)
		for _, path := range []string{path, path + "/"} {
			path = strings.ReplaceAll(path, "{id}", uuid.NewString())
			for _, token := range []string{"", "whk_wrong"} {
				w := serve(t, s.db) // whose gate has seen no failure
				a := w.do(token, method, path, "")
				a.refused(t, 401, "")
				require.Contains(t, a.Header.Get("WWW-Authenticate"), "Bearer")
			}
			for _, scope := range admin.Scopes {
				a := s.do(tokens[scope], method, path, "")
				if scope == r.Scope || scope == admin.ScopeManage && r.Scope == admin.ScopeRead {
					require.NotContains(t, []int{401, 403}, a.StatusCode, "%s %s", method, path)
					continue
				}
				p := a.refused(t, 403, "")
				require.Contains(t, p["detail"], "scope "+string(r.Scope))
			}
		}
	}
	require.Empty(t, known, "every description has a route")
}

func TestRouteWithoutScopeCannotBeRegistered(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	for _, scope := range []admin.Scope{"", "everything"} {
		require.Panics(t, func() { api.AddRoute(s.handler, "GET /api/v1/secret", scope, http.NotFoundHandler()) })
	}
	require.Panics(t, func() { api.AddRoute(s.handler, "GET /api/v1/docs", admin.ScopeRead, http.NotFoundHandler()) })
}

func TestOnlyBearerTokensEnter(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for _, scheme := range []string{"Bearer ", "bearer ", "BEARER  "} {
		s.do("", "GET", "/webhooks/", "", "Authorization", scheme+root).wants(t, 200)
	}
	for _, header := range []string{"", "Bearer", "Bearer ", root, "Basic " + root, "Token " + root, "Bearer" + root, "Bearer " + root[:len(root)-1], "Bearer " + root + "x", "Bearer " + strings.ToUpper(root)} {
		serve(t, s.db).do("", "GET", "/webhooks/", "", "Authorization", header).refused(t, 401, "")
	}
	r := s.request(root, "GET", "/webhooks/", nil)
	r.Header.Add("Authorization", "Bearer "+root)
	s.send(r).refused(t, 401, "")
	s.do("", "GET", "/webhooks/?access_token="+root+"&token="+root, "").refused(t, 401, "")
	s.do("", "GET", "/webhooks/", "", "Cookie", "token="+root).refused(t, 401, "")
}

func TestGuessingIsSlowedDown(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for range 50 {
		a := s.do("whk_"+uuid.NewString(), "GET", "/webhooks/", "")
		if a.StatusCode == http.StatusTooManyRequests {
			a.refused(t, 429, "")
			require.Regexp(t, `^[1-9][0-9]*$`, a.Header.Get("Retry-After"))
			return
		}
		a.refused(t, 401, "")
	}
	require.Fail(t, "nobody slowed it down")
}

func TestPathTricksDoNotEnter(t *testing.T) {
	t.Parallel()
	s := newService(t)
	id := s.create(root, minimal)["id"].(string)
	for _, path := range []string{
		"/api/v1//webhooks/", "//api/v1/webhooks/", "/api/v1/./webhooks/", "/api/v1/docs/../webhooks/", "/api/v1/docs/..;/webhooks/", "/api/v1/docs/%2e%2e/webhooks/",
		"/api/v1/docs%2f..%2fwebhooks", "/api/v1/docs%2fwebhooks", "/api/v1/openapi.json/../webhooks/", "/api/v1/openapi.json/webhooks", "/api/v1/openapi.json;/../webhooks/",
		"/api/v1/webhooks//", "/api/v1/webhooks./", "/api/v1/webhooks.", "/API/V1/webhooks/", "/api/v1/WEBHOOKS/", "/api/v1/webhooks%00", "/api/v1/webhooks%20", "/api/v1/docs\\..\\webhooks",
		"/api/v1/webhooks/" + id + "/../" + id, "/api/v1/webhooks/%" + fmt.Sprintf("%x", id[0]) + id[1:], "/api/v1/webhooks/" + id + "//stats", "/api/v1/webhooks/" + id + "%2fstats",
		"/api/v1", "/api/v1/", "/", "/api/v2/webhooks/", "/healthz/../api/v1/webhooks/", "*",
	} {
		a := serve(t, s.db).raw(t, "GET "+path+" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		require.Contains(t, []string{"401", "400"}, a, "%s", path)
		a = s.raw(t, "GET "+path+" HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer "+root+"\r\n\r\n")
		require.Contains(t, []string{"404", "400"}, a, "%s is no path", path)
	}
	for _, header := range []string{"X-HTTP-Method-Override", "X-Method-Override", "X-HTTP-Method"} {
		reader := s.token(nil, admin.ScopeRead)
		s.do(reader, "POST", "/webhooks/"+id, "", header, "DELETE").refused(t, 405, "")
		s.do(reader, "GET", "/webhooks/"+id, "", header, "DELETE").wants(t, 200)
	}
	for _, header := range []string{"X-Original-URL", "X-Rewrite-URL"} {
		s.do("", "GET", "/docs", "", header, "/api/v1/webhooks/").wants(t, 200)
		serve(t, s.db).do("", "GET", "/webhooks/", "", header, "/api/v1/docs").refused(t, 401, "")
	}
	s.do(root, "GET", "/webhooks/"+id, "").wants(t, 200)
}

// raw sends bytes and returns the status of the answer.
func (s *service) raw(t *testing.T, request string) string {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.server.Listener.Addr().String())
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_, err = io.WriteString(conn, request)
	require.NoError(t, err)
	text, err := io.ReadAll(conn)
	require.NoError(t, err)
	fields := strings.Fields(string(text))
	require.GreaterOrEqual(t, len(fields), 2, "%s", text)
	return fields[1]
}

func TestMethodsThatAreNotThere(t *testing.T) {
	t.Parallel()
	s := newService(t)
	id := uuid.NewString()
	for path, allow := range map[string]string{
		"/webhooks/": "GET, POST", "/webhooks/" + id: "GET, PUT, PATCH, DELETE", "/webhooks/" + id + "/test": "POST",
		"/webhooks/system/stats": "GET", "/webhooks/events/trigger": "POST", "/replication": "GET", "/openapi.json": "GET",
	} {
		for _, method := range []string{"TRACE", "OPTIONS", "PROPFIND", "get"} {
			a := s.do(root, method, path, "")
			a.refused(t, 405, "")
			require.Equal(t, allow, a.Header.Get("Allow"))
			require.Empty(t, a.Header.Get("Access-Control-Allow-Origin"))
			s.do("", method, path, "").refused(t, 401, "")
		}
	}
	require.Empty(t, s.do(root, "HEAD", "/webhooks/", "").wants(t, 200).text)
	s.do(root, "GET", "/nothing", "").refused(t, 404, "")
}

func TestTokenOfATenantSeesItsRowsAlone(t *testing.T) {
	t.Parallel()
	s := newService(t)
	a, b := "a", "b"
	tokenA, tokenB := s.token(&a, admin.Scopes...), s.token(&b, admin.Scopes...)
	foreign := s.create(root, `{"name": "theirs", "url": "https://example.com/", "tenant": "b"}`)
	id := foreign["id"].(string)
	own := s.create(tokenA, minimal)
	require.Equal(t, "a", own["tenant"], "a token's tenant is the default")
	for route := range contract {
		method, path, _ := strings.Cut(route, " ")
		if !strings.Contains(path, "{id}") || strings.HasPrefix(path, "/deliveries") {
			continue
		}
		body := map[string]string{
			"PUT /webhooks/{id}": minimal, "PATCH /webhooks/{id}": `{"name": "mine"}`,
			"POST /webhooks/{id}/rotate-secret": `{"new_secret": "mine-mine-mine"}`, "POST /webhooks/{id}/replay": `{"since": "2026-01-01T00:00:00Z"}`,
		}[route]
		path = strings.ReplaceAll(path, "{id}", id)
		s.do(tokenA, method, path, body).refused(t, 404, "")
		s.do(tokenA, method, path, body, "If-Match", fmt.Sprintf(`"%v"`, foreign["revision"])).refused(t, 404, "")
		s.do(tokenA, method, path, body, "If-Match", `"999999"`).refused(t, 404, "")
	}
	require.Equal(t, foreign, s.do(tokenB, "GET", "/webhooks/"+id, "").wants(t, 200).object(t), "nothing has changed")
	require.Len(t, s.do(tokenA, "GET", "/webhooks/", "").wants(t, 200).object(t)["items"], 1)
	require.Len(t, s.do(root, "GET", "/webhooks/", "").wants(t, 200).object(t)["items"], 2)
	s.do(tokenA, "GET", "/replication", "").refused(t, 403, "")
	s.do(tokenA, "POST", "/event-types", `{"name": "x"}`).refused(t, 403, "")
	require.GreaterOrEqual(t, s.do(tokenA, "POST", "/webhooks/", `{"name": "a", "url": "https://example.com/", "tenant": "b"}`).StatusCode, 400)
	s.do(tokenA, "POST", "/webhooks/events/trigger", `{"event_type": "x", "tenant": "b"}`).refused(t, 403, "body.tenant")
	s.do(tokenA, "POST", "/webhooks/events/trigger", `{"event_type": "x"}`).wants(t, 202)
	require.Equal(t, 1, s.count(t.Context(), "SELECT count(*) FROM outbox.events WHERE tenant = 'a'"))
	require.Equal(t, 1, s.count(t.Context(), "SELECT count(*) FROM outbox.events"))
}
