package api_test

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/admin"
	"github.com/walhook/walhook/relay/api"
)

func TestDescription(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	a := s.do("", "GET", "/openapi.json", "").wants(t, 200)
	require.Equal(t, "application/json", a.Header.Get("Content-Type"))
	d := a.object(t)
	require.Regexp(t, `^3\.1\.`, d["openapi"])
	require.Equal(t, "1.2.3", d["info"].(map[string]any)["version"])
	require.Equal(t, "/api/v1", d["servers"].([]any)[0].(map[string]any)["url"])
	ids := map[string]bool{}
	for path, methods := range d["paths"].(map[string]any) {
		for method, o := range methods.(map[string]any) {
			operation := o.(map[string]any)
			id := operation["operationId"].(string)
			require.False(t, ids[id], id)
			ids[id] = true
			require.NotEmpty(t, operation["summary"])
			require.Contains(t, operation["description"], "scope")
			for _, status := range []string{"400", "401", "403", "429", "500"} {
				require.Contains(t, operation["responses"], status, "%s %s", method, path)
			}
			if body, ok := operation["requestBody"].(map[string]any); ok {
				for _, content := range body["content"].(map[string]any) {
					require.Contains(t, content, "schema")
					require.Contains(t, content, "example")
				}
			}
		}
	}
	components := d["components"].(map[string]any)["schemas"].(map[string]any)
	for _, reference := range regexp.MustCompile(`"\$ref":"#/components/schemas/(\w+)"`).FindAllSubmatch(a.text, -1) {
		require.Contains(t, components, string(reference[1]))
	}
	require.NotContains(t, string(a.text), "$schema")
	for name, schema := range components {
		more, said := schema.(map[string]any)["additionalProperties"]
		if strings.HasSuffix(name, "Body") && !strings.HasSuffix(name, "AnswerBody") || name == "WebhookPut" || name == "WebhookPatch" {
			require.Equal(t, false, more, "unknown members of %s are refused", name)
			continue
		}
		require.False(t, said, "a client that is generated from %s must take what a later version adds", name)
	}
}

func TestDescriptionFollowsThePrefix(t *testing.T) {
	t.Parallel()
	store := admin.New(nil, admin.Options{Token: root})
	h := api.New(api.Options{Store: store, Gate: admin.NewGate(store), Prefix: "/walhook", Log: zerolog.Nop()})
	for path, want := range map[string]string{"/api/v1/openapi.json": `"url":"/walhook/api/v1"`, "/api/v1/docs": `href="/walhook/api/v1/docs/style.css"`} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", path, nil))
		require.Equal(t, 200, w.Code)
		require.Contains(t, w.Body.String(), want)
	}
}

func TestExamplesAreTaken(t *testing.T) {
	t.Parallel()
	examples := api.BodyExamples(serve(t, nil).handler)
	for id, decode := range map[string]func([]byte) error{
		"create-webhook":    func(b []byte) error { _, err := api.DecodeCreate(b); return err },
		"replace-webhook":   api.DecodePut,
		"update-webhook":    func(b []byte) error { _, err := api.DecodeCreate(b); return err },
		"test-webhook":      api.DecodeTest,
		"rotate-secret":     api.DecodeRotate,
		"replay-webhook":    api.DecodeReplay,
		"trigger-event":     func(b []byte) error { _, err := api.DecodeTrigger(b); return err },
		"create-event-type": api.DecodeEventType,
	} {
		require.NoError(t, decode(examples[id]), id)
		delete(examples, id)
	}
	require.Empty(t, examples)
}

func TestDescribedMembersAreTheAnswers(t *testing.T) {
	t.Parallel()
	s := newService(t)
	d := s.do("", "GET", "/openapi.json", "").object(t)
	schemas := d["components"].(map[string]any)["schemas"].(map[string]any)
	w := s.create(root, `{"name": "a", "url": "https://example.com/a", "secret": "0123456789"}`)
	id := w["id"].(string)
	for name, answer := range map[string]map[string]any{
		"Webhook": w, "Stats": s.do(root, "GET", "/webhooks/"+id+"/stats", "").object(t),
		"EventType": s.do(root, "POST", "/event-types", `{"name": "x"}`).object(t),
	} {
		properties := schemas[name].(map[string]any)["properties"].(map[string]any)
		for member := range answer {
			require.Contains(t, properties, member, name)
		}
		for _, member := range schemas[name].(map[string]any)["required"].([]any) {
			require.Contains(t, answer, member, name)
		}
	}
}

func TestDocumentationPage(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	a := s.do("", "GET", "/docs/", "").wants(t, 200)
	require.Equal(t, "text/html; charset=utf-8", a.Header.Get("Content-Type"))
	require.Contains(t, a.Header.Get("Content-Security-Policy"), "default-src 'none'; style-src 'self'")
	page := string(a.text)
	for route, scope := range contract {
		method, path, _ := strings.Cut(route, " ")
		require.Contains(t, page, fmt.Sprintf(`<span class="method %s">%s</span> <code>/api/v1%s</code> <span class="scope">scope %s</span>`, method, method, path, scope))
	}
	require.NotRegexp(t, `(?i)<script|<style|style="|https?://[^<]*\.(js|css)|javascript:|\son\w+=`, page, "no scripts, nothing from elsewhere")
	require.Contains(t, page, "correct horse", "examples")
	require.Contains(t, page, "At least 1. At most 500. Default 50", "what a parameter takes")
	require.Contains(t, page, "One of &#34;active&#34;, &#34;inactive&#34;")
	require.Equal(t, "text/css; charset=utf-8", s.do("", "GET", "/docs/style.css", "").wants(t, 200).Header.Get("Content-Type"))
	require.True(t, json.Valid(s.do("", "GET", "/openapi.json/", "").wants(t, 200).text))
}
