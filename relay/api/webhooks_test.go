package api_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

func TestWebhookIsMadeShownChangedAndRemoved(t *testing.T) {
	t.Parallel()
	s := newService(t)
	made := s.do(root, "POST", "/webhooks/", `{"name": "Cardiology", "url": "https://example.com/hooks", "events": ["patient.*"],
		"filters": {"department": "cardiology", "amount_min": 12345678901234567890.5}, "headers": {"X-Clinic": "1"}, "secret": "s3cret-s3cret",
		"max_retries": 5, "retry_delay": 1.5, "timeout": 20, "rate_limit": 7, "is_active": false}`).wants(t, 201)
	w := made.object(t)
	id := w["id"].(string)
	require.Equal(t, "/api/v1/webhooks/"+id, made.Header.Get("Location"))
	require.Equal(t, fmt.Sprintf(`"%v"`, w["revision"]), made.Header.Get("ETag"))
	require.Equal(t, "Cardiology", w["name"])
	require.EqualValues(t, 1.5, w["retry_delay"])
	require.EqualValues(t, 7, w["rate_limit"])
	require.Equal(t, true, w["has_secret"])
	require.Equal(t, false, w["is_active"])
	require.Contains(t, string(made.text), "12345678901234567890.5", "numbers keep their digits")
	require.NotContains(t, string(made.text), "s3cret-s3cret")

	got := s.do(root, "GET", "/webhooks/"+id, "").wants(t, 200)
	require.Equal(t, made.Header.Get("ETag"), got.Header.Get("ETag"))
	require.Equal(t, w, got.object(t))
	require.Equal(t, w, s.do(root, "GET", "/webhooks/"+id+"/", "").wants(t, 200).object(t), "a trailing slash makes no difference")

	changed := s.do(root, "PATCH", "/webhooks/"+id, `{"max_retries": 2, "rate_limit": null, "secret": null}`,
		"If-Match", got.Header.Get("ETag"), "Content-Type", "application/merge-patch+json").wants(t, 200).object(t)
	require.EqualValues(t, 2, changed["max_retries"])
	require.Nil(t, changed["rate_limit"])
	require.Equal(t, false, changed["has_secret"])
	require.EqualValues(t, 20, changed["timeout"], "what is not given stays")

	require.Empty(t, s.do(root, "DELETE", "/webhooks/"+id, "").wants(t, 204).text)
	s.do(root, "GET", "/webhooks/"+id, "").refused(t, 404, "")
	s.do(root, "DELETE", "/webhooks/"+id, "").refused(t, 404, "")
}

func TestAnswerSentBackChangesNothing(t *testing.T) {
	t.Parallel()
	s := newService(t)
	w := s.create(root, `{"name": "a", "url": "https://example.com/a", "secret": "0123456789", "tenant": "t",
		"headers": {"Authorization": "Bearer abc", "X-A": "1"}, "rate_limit": 3, "events": ["b"], "batch_size": 2}`)
	path := "/webhooks/" + w["id"].(string)
	before := s.do(root, "GET", path, "").wants(t, 200)
	require.NotContains(t, string(before.text), "Bearer abc")
	s.do(root, "PUT", path, string(before.text)).wants(t, 200)
	after := s.do(root, "GET", path, "").wants(t, 200).object(t)
	for _, name := range []string{"updated_at", "revision"} {
		delete(after, name)
		delete(w, name)
	}
	require.Equal(t, w, after)
	require.Equal(t, 1, s.count(t.Context(), `SELECT count(*) FROM outbox.subscriptions WHERE secret = '0123456789' AND headers ->> 'Authorization' = 'Bearer abc'`))
}

func TestPutGivesDefaultsToWhatIsLeftOut(t *testing.T) {
	t.Parallel()
	s := newService(t)
	fresh := s.create(root, minimal)
	require.Equal(t, []any{}, fresh["events"])
	require.Equal(t, map[string]any{}, fresh["filters"])
	require.Equal(t, map[string]any{}, fresh["headers"])
	w := s.create(root, `{"name": "b", "url": "https://example.com/b", "description": "d", "events": ["x"], "filters": {"a": 1}, "headers": {"X-A": "1"},
		"secret": "0123456789", "signature": "github", "payload_format": "standard", "payload_version": 2, "max_retries": 9, "retry_delay": 9, "timeout": 9, "ordering": "key",
		"max_in_flight": 9, "rate_limit": 9, "batch_size": 9, "batch_wait": 9, "verification": "cloudevents", "is_active": false}`)
	put := s.do(root, "PUT", "/webhooks/"+w["id"].(string), minimal).wants(t, 200).object(t)
	require.Equal(t, true, put["has_secret"], "a secret that is left out stays")
	removed := s.do(root, "PUT", "/webhooks/"+w["id"].(string), `{"name": "a", "url": "https://example.com/a", "secret": null}`).wants(t, 200).object(t)
	require.Equal(t, false, removed["has_secret"])
	for _, name := range []string{"id", "created_at", "updated_at", "revision"} {
		delete(fresh, name)
		delete(removed, name)
	}
	require.Equal(t, fresh, removed, "the defaults are the database's")
}

func TestIfMatch(t *testing.T) {
	t.Parallel()
	s := newService(t)
	w := s.create(root, minimal)
	path, tag := "/webhooks/"+w["id"].(string), fmt.Sprintf(`"%v"`, w["revision"])
	patch := `{"description": "x"}`
	for _, stale := range []string{`"999999"`, "W/" + tag, `"x"`, `"0"`, `"999998", "999999"`, `"99999999999999999999"`} {
		a := s.do(root, "PATCH", path, patch, "If-Match", stale)
		p := a.refused(t, 412, "")
		require.Equal(t, w["revision"], p["revision"], "the problem tells the revision")
		require.Equal(t, tag, a.Header.Get("ETag"))
		s.do(root, "DELETE", path, "", "If-Match", stale).refused(t, 412, "")
	}
	for _, malformed := range []string{"7", `"7`, "x", `"7",`, `""7""`} {
		s.do(root, "PUT", path, minimal, "If-Match", malformed).refused(t, 400, "header.If-Match")
	}
	for _, fits := range []string{"%s", "*", `"999999", %s`, `W/"3",%s , "x"`} {
		now := s.do(root, "PATCH", path, patch, "If-Match", strings.ReplaceAll(fits, "%s", tag)).wants(t, 200)
		require.NotEqual(t, tag, now.Header.Get("ETag"))
		patch = `{"description": "` + uuid.NewString() + `"}`
		tag = now.Header.Get("ETag")
	}
	s.do(root, "DELETE", path, "", "If-Match", tag).wants(t, 204)
}

func TestLists(t *testing.T) {
	t.Parallel()
	s := newService(t)
	require.JSONEq(t, `{"items": []}`, string(s.do(root, "GET", "/webhooks/", "").wants(t, 200).text))
	for i := range 5 {
		s.create(root, fmt.Sprintf(`{"name": "w%d", "url": "https://example.com/", "is_active": %t}`, i, i != 2))
	}
	var names []string
	for path := "/webhooks/?limit=2"; path != ""; {
		var page struct {
			Items []struct{ Name string }
			Next  string `json:"next_cursor"`
		}
		require.NoError(t, json.Unmarshal(s.do(root, "GET", path, "").wants(t, 200).text, &page))
		require.LessOrEqual(t, len(page.Items), 2)
		for _, w := range page.Items {
			names = append(names, w.Name)
		}
		path = ""
		if page.Next != "" {
			path = "/webhooks?limit=2&cursor=" + page.Next
		}
	}
	require.Equal(t, []string{"w4", "w3", "w2", "w1", "w0"}, names)
	require.Len(t, s.do(root, "GET", "/webhooks/?status=inactive", "").wants(t, 200).object(t)["items"], 1)
	require.Len(t, s.do(root, "GET", "/webhooks/?status=active", "").wants(t, 200).object(t)["items"], 4)
	for query, location := range map[string]string{
		"?status=new": "query.status", "?limit=0": "query.limit", "?limit=501": "query.limit", "?limit=-1": "query.limit",
		"?limit=x": "query.limit", "?limit=99999999999999999999": "query.limit", "?state=active": "query.state", "?cursor=zzz": "query.cursor",
		"?cursor=" + uuid.NewString(): "query.cursor",
	} {
		s.do(root, "GET", "/webhooks/"+query, "").refused(t, 422, location)
	}
	for query, detail := range map[string]string{
		"?status=new": "status: must be one of active, inactive", "?limit=0": "limit: must be at least 1", "?limit=501": "limit: must be at most 500",
		"?limit=x": "limit: must be a whole number", "?state=active": "state: is unknown: openapi.json lists the names",
	} {
		require.Equal(t, detail, s.do(root, "GET", "/webhooks/"+query, "").refused(t, 422, "")["detail"])
	}
	s.do(root, "GET", "/webhooks/?limit=1&limit=2", "").refused(t, 400, "query.limit")
	s.do(root, "GET", "/webhooks/?a=%zz", "").refused(t, 400, "")
}

func TestActivateAndDeactivate(t *testing.T) {
	t.Parallel()
	s := newService(t)
	path := "/webhooks/" + s.create(root, minimal)["id"].(string)
	a := s.do(root, "POST", path+"/deactivate", "").wants(t, 200)
	require.Equal(t, false, a.object(t)["is_active"])
	require.NotEmpty(t, a.Header.Get("ETag"))
	require.Equal(t, true, s.do(root, "POST", path+"/activate/", "").wants(t, 200).object(t)["is_active"])
}

func TestBodiesOfWebhooksThatAreRefused(t *testing.T) {
	t.Parallel()
	s := newService(t)
	path := "/webhooks/" + s.create(root, `{"name": "a", "url": "https://example.com/a", "tenant": "t"}`)["id"].(string)
	with := func(member string) string { return `{"name": "a", "url": "https://example.com/a", ` + member + `}` }
	for body, location := range map[string]string{
		`{"url": "https://example.com/"}`:                  "body.name",
		`{"name": "a"}`:                                    "body.url",
		`{"name": "", "url": "https://example.com/"}`:      "body.name",
		`{"name": "a", "url": "ftp://example.com/"}`:       "body.url",
		`{"name": "a", "url": "https://u:p@example.com/"}`: "body.url",
		`{"name": 1, "url": "https://example.com/"}`:       "body.name",
		with(`"max_retries": 11`):                          "body.max_retries",
		with(`"max_retries": 2.5`):                         "body.max_retries",
		with(`"max_retries": "3"`):                         "body.max_retries",
		with(`"max_retries": 9007199254740993`):            "body.max_retries",
		with(`"max_retries": 99999999999999999999`):        "body.max_retries",
		with(`"max_retries": null`):                        "body.max_retries",
		with(`"timeout": 0`):                               "body.timeout",
		with(`"timeout": 1e400`):                           "body.timeout",
		with(`"retry_delay": -1`):                          "body.retry_delay",
		with(`"rate_limit": 0`):                            "body.rate_limit",
		with(`"secret": ""`):                               "body.secret",
		with(`"events": "patient.*"`):                      "body.events",
		with(`"events": ["a", null]`):                      "body.events",
		with(`"events": ["a b"]`):                          "body.events",
		with(`"filters": []`):                              "body.filters",
		with(`"headers": {"X-A": 1}`):                      "body.headers",
		with(`"headers": {"X-A": null}`):                   "body.headers",
		with(`"headers": {"Host": "x"}`):                   "body.headers",
		with(`"signature": "md5"`):                         "body.signature",
		with(`"ordering": "random"`):                       "body.ordering",
		with(`"is_active": "yes"`):                         "body.is_active",
		with(`"id": "x"`):                                  "body.id",
		with(`"color": "red"`):                             "body.color",
		with(`"URL": "https://example.com/"`):              "body.URL",
		with(`"name": "twice"`):                            "body.name",
		with(`"filters": {"a": {"b": 1, "b": 2}}`):         "body.filters.a.b",
		with(`"description": "\u0000"`):                    "body",
		with(`"description": "\ud800"`):                    "body",
		with(`"backfill_from": "yesterday"`):               "body.backfill_from",
		"[]":                                               "body",
		`"x"`:                                              "body",
		"null":                                             "body",
	} {
		s.do(root, "POST", "/webhooks/", body).refused(t, 422, location)
	}
	for body, location := range map[string]string{
		with(`"tenant": "other"`): "body.tenant", with(`"backfill_from": "2026-01-01T00:00:00Z"`): "body.backfill_from",
	} {
		s.do(root, "PUT", path, body).refused(t, 422, location)
		s.do(root, "PATCH", path, body).refused(t, 422, location)
	}
	s.do(root, "PATCH", path, `{"name": null}`).refused(t, 422, "body.name")
	s.do(root, "PATCH", path, `{"revision": 3}`).refused(t, 422, "body.revision")
	require.Equal(t, 1, s.count(t.Context(), "SELECT count(*) FROM outbox.subscriptions"))
}

func TestBodiesThatAreNoJSON(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for _, body := range []string{
		"", " \n", "{", `{"name": "a"`, minimal + "x", minimal + minimal, `{"max_retries": NaN}`, `{"name": 'a'}`, `{"a": 01}`,
		"{\"name\": \"\xff\"}", "\ufeff" + minimal, "{\"name\": \"a\nb\"}", `{"name": "\x"}`,
	} {
		p := s.do(root, "POST", "/webhooks/", body).refused(t, 400, "body")
		require.NotContains(t, fmt.Sprint(p["errors"]), "value:", "a body is not repeated")
	}
	p := s.do(root, "POST", "/webhooks/", `{"name": x}`).refused(t, 400, "body")
	require.Contains(t, p["detail"], "at byte 10")
}

func TestSecretsAreNotRepeated(t *testing.T) {
	t.Parallel()
	s := newService(t)
	path := "/webhooks/" + s.create(root, minimal)["id"].(string)
	const secret = "8462738462738"
	for _, r := range []struct{ method, path, body string }{
		{"POST", "/webhooks/", `{"name": "a", "url": "https://example.com/a", "secret": ` + secret + `}`},
		{"POST", "/webhooks/", `{"name": "a", "url": "https://example.com/a", "secert": "` + secret + `"}`},
		{"POST", "/webhooks/", `{"name": "a", "url": "https://example.com/a", "headers": "` + secret + `"}`},
		{"POST", "/webhooks/", `{"name": "a", "url": "https://example.com/a", "headers": {"Host": "` + secret + `"}}`},
		{"POST", "/webhooks/", `{"name": "a", "url": "https://example.com/a", "signature": "standard", "secret": "` + secret + `!"}`},
		{"POST", path + "/rotate-secret", `{"new_secret": ` + secret + `}`},
		{"POST", path + "/rotate-secret", `{"new_secret": ["` + secret + `"]}`},
		{"POST", path + "/test", `{"test_data": "` + secret + `", "event_type": 5}`},
		{"POST", "/webhooks/events/trigger", `{"event_type": "a b", "event_data": "` + secret + `"}`},
		{"POST", "/webhooks/events/trigger", `{"event_type": "a", "headers": {"a": ` + secret + `}}`},
	} {
		a := s.do(root, r.method, r.path, r.body).wants(t, 422)
		require.NotContains(t, string(a.text), secret, "%s", r.body)
	}
	require.NotContains(t, s.log.text(), secret)
	a := s.do(root, "POST", "/webhooks/", `{"name": "a", "url": 12345}`).refused(t, 422, "body.url")
	require.Contains(t, fmt.Sprint(a["errors"]), "12345", "what is no secret is")
}

func TestRotateAndReplay(t *testing.T) {
	t.Parallel()
	s := newService(t)
	path := "/webhooks/" + s.create(root, `{"name": "a", "url": "https://example.com/a", "secret": "old-secret"}`)["id"].(string)
	w := s.do(root, "POST", path+"/rotate-secret", `{"new_secret": "new-secret", "overlap": 60}`).wants(t, 200).object(t)
	require.NotEmpty(t, w["previous_secret_expires_at"])
	require.Equal(t, 1, s.count(t.Context(), "SELECT count(*) FROM outbox.subscriptions WHERE secret = 'new-secret' AND previous_secret = 'old-secret' AND previous_secret_expires_at BETWEEN now() + interval '50 s' AND now() + interval '60 s'"))
	for body, location := range map[string]string{
		`{}`: "body.new_secret", `{"new_secret": ""}`: "body.new_secret", `{"new_secret": "a", "overlap": -1}`: "body.overlap",
		`{"new_secret": "a", "overlap": 1e300}`: "body.overlap", `{"new_secret": null}`: "body.new_secret",
	} {
		s.do(root, "POST", path+"/rotate-secret", body).refused(t, 422, location)
	}

	id := s.do(root, "POST", path+"/replay", `{"since": "2026-01-01T00:00:00Z", "only_failed": true}`).wants(t, 202).object(t)["replay_id"]
	require.Equal(t, 1, s.count(t.Context(), "SELECT count(*) FROM outbox.replays WHERE id = $1 AND only_failed", id))
	for body, location := range map[string]string{
		`{}`: "body.since", `{"since": 5}`: "body.since", `{"since": "2026-01-01"}`: "body.since",
	} {
		s.do(root, "POST", path+"/replay", body).refused(t, 422, location)
	}
	s.do(root, "POST", path+"/replay", `{"since": "2999-01-01T00:00:00Z"}`).refused(t, 422, "")
	s.do(root, "POST", path+"/replay", `{"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}`).refused(t, 422, "")
}

func TestUnknownIdsAreNotFound(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.create(root, minimal)
	for _, id := range []string{uuid.NewString(), uuid.Nil.String(), "x", "system", "1", "%00", "urn:uuid:" + uuid.NewString(), "{" + uuid.NewString() + "}", "';--"} {
		for _, r := range [][2]string{
			{"GET", "/webhooks/" + id}, {"PUT", "/webhooks/" + id}, {"PATCH", "/webhooks/" + id}, {"DELETE", "/webhooks/" + id},
			{"POST", "/webhooks/" + id + "/activate"}, {"POST", "/webhooks/" + id + "/test"}, {"GET", "/webhooks/" + id + "/calls"},
			{"POST", "/deliveries/" + id + "/redeliver"},
		} {
			body := map[string]string{"PUT": minimal, "PATCH": `{"name": "b"}`}[r[0]]
			s.do(root, r[0], r[1], body).refused(t, http.StatusNotFound, "")
		}
	}
	require.Equal(t, []string{"items"}, slices.Collect(maps.Keys(s.do(root, "GET", "/webhooks", "").object(t))))
}
