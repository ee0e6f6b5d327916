package acceptance_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// as asks a page of the relay's with a token and returns the HTTP status; 0 means that nobody answered.
func (r *relay) as(token, path string) int {
	r.t.Helper()
	request, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, r.url+path, nil)
	require.NoError(r.t, err)
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	client := http.Client{Timeout: 5 * time.Second}
	defer client.CloseIdleConnections()
	response, err := client.Do(request)
	if err != nil {
		return 0
	}
	require.NoError(r.t, response.Body.Close())
	return response.StatusCode
}

const webhooks = "/api/v1/webhooks/"

// token runs walhook token.
func (db *database) token(args ...string) result {
	db.t.Helper()
	return run(db.t, db.env(), append([]string{"token"}, args...)...)
}

// newToken makes a token and returns it.
func (db *database) newToken(args ...string) string {
	db.t.Helper()
	r := db.token(append([]string{"create"}, args...)...)
	require.Zero(db.t, r.code, r.stderr)
	require.Regexp(db.t, `^whk_\S{40,}\n$`, r.stdout, "the token and nothing else")
	require.Contains(db.t, r.stderr, "only once")
	return strings.TrimSpace(r.stdout)
}

// A token is printed once, opens the API until it is revoked, and is written down nowhere.
func TestTokens(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := db.start("--log-level", "trace")
	require.Equal(t, http.StatusUnauthorized, r.as("", webhooks), "nobody is let in without")

	token := db.newToken("--name", "dash board")
	require.Equal(t, http.StatusOK, r.as(token, webhooks), "at once")
	require.Equal(t, http.StatusUnauthorized, r.as(token+"x", webhooks))
	made := db.token("create", "--name", "clinic", "--scope", "manage,publish", "--tenant", "t-1", "--expires-in", "90d", "--json")
	o := made.object(t)
	require.Equal(t, http.StatusOK, r.as(o["token"].(string), webhooks))
	require.Equal(t, []any{"manage", "publish"}, o["scopes"])
	require.Equal(t, "t-1", o["tenant"])
	require.NotContains(t, made.stderr, o["token"])
	require.True(t, ask[bool](db, `SELECT expires_at BETWEEN now() + interval '89 days' AND now() + interval '91 days' FROM outbox.api_tokens WHERE name = 'clinic'`))

	list := db.token("list")
	require.Zero(t, list.code, list.stderr)
	require.Regexp(t, `(?m)^\S+ +clinic +whk_\S{4}… +manage,publish +"t-1" +valid +20\d\d-\S+Z +20\d\d-\S+Z$`, list.stdout)
	require.Regexp(t, `(?m)^\S+ +dash board +whk_\S{4}… +read +all +valid +never +20\d\d-\S+Z$`, list.stdout)
	require.Len(t, db.token("list", "--json").object(t)["tokens"], 2)

	revoked := db.token("revoke", "dash board")
	require.Zero(t, revoked.code, revoked.stderr)
	require.Regexp(t, `^revoked \S{36}\n$`, revoked.stdout)
	require.Equal(t, http.StatusUnauthorized, r.as(token, webhooks), "at once")
	require.Zero(t, db.token("revoke", o["id"].(string), "--json").code)
	require.Equal(t, http.StatusUnauthorized, r.as(o["token"].(string), webhooks))
	require.Equal(t, 2, strings.Count(db.token("list").stdout, " revoked "))

	r.terminate(soon)
	for _, secret := range []string{token, o["token"].(string)} {
		require.NotContains(t, r.Stderr()+list.stdout, secret)
		require.False(t, ask[bool](db, `SELECT EXISTS (SELECT FROM outbox.api_tokens a WHERE a::text LIKE '%' || $1 || '%')`, secret))
	}
}

func TestTokensRefuse(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	db.newToken("--name", "taken")
	for _, c := range []struct {
		code int
		says string
		args []string
	}{
		{2, "--name", []string{"create"}},
		{2, `"write"`, []string{"create", "--name", "n", "--scope", "write"}},
		{2, "--expires-in -1h0m0s", []string{"create", "--name", "n", "--expires-in", "-1h"}},
		{2, `"soon"`, []string{"create", "--name", "n", "--expires-in", "soon"}},
		{2, `"taken"`, []string{"create", "--name", "taken"}},
		{2, "name", []string{"create", "--name", strings.Repeat("n", 256)}},
		{2, "1 arg", []string{"revoke"}},
		{1, `"nobody"`, []string{"revoke", "nobody"}},
	} {
		r := db.token(c.args...)
		require.Equal(t, c.code, r.code, "%v: %s", c.args, r.stderr)
		require.Contains(t, r.stderr, c.says)
		require.Empty(t, r.stdout)
	}
	require.Equal(t, 1, ask[int](db, "SELECT count(*) FROM outbox.api_tokens"))
}

// A token of the configuration opens everything and is shown nowhere.
func TestTokenOfTheConfiguration(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	const token = "a-token-of-the-configuration"
	p := harness.StartProcess(t, db.cli, append(db.env(), "WALHOOK_API_TOKEN="+token), "run", "--log-level", "trace")
	var line struct{ Listen string }
	require.NoError(t, json.Unmarshal([]byte(p.WaitFor("walhook runs", soon)), &line))
	r := &relay{Process: p, t: t, url: "http://" + line.Listen}
	require.Equal(t, http.StatusOK, r.as(token, webhooks))
	require.Equal(t, http.StatusUnauthorized, r.as(token[1:], webhooks))
	_, metrics := r.get("/metrics")
	r.terminate(soon)
	require.NotContains(t, p.Stderr()+p.Stdout()+metrics, token)

	short := run(t, append(db.env(), "WALHOOK_API_TOKEN=too-short"), "run")
	require.Equal(t, 2, short.code)
	require.Contains(t, short.stderr, "api.token")
	require.NotContains(t, short.stderr, "too-short")
}

// The doctor says that nobody can get in, and who could.
func TestDoctorLooksForTokens(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	says := func(args ...string) string {
		_, out := db.walhook(append([]string{"doctor", "--skip-urls"}, args...)...)
		return out
	}
	require.Contains(t, says(), "api_token_missing")
	db.newToken("--name", "n", "--expires-in", "30d")
	require.NotContains(t, says(), "api_token_missing")
	db.do("UPDATE outbox.api_tokens SET expires_at = now() - interval '1 s'")
	require.Contains(t, says(), "1 tokens have expired: n")
}
