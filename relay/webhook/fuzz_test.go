package webhook_test

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/webhook"
)

// onWire writes a request as net/http does and reads it back as a server does.
func onWire(t *testing.T, r *http.Request) *http.Request {
	t.Helper()
	var wire bytes.Buffer
	require.NoError(t, r.Write(&wire))
	back, err := http.ReadRequest(bufio.NewReader(&wire))
	require.NoError(t, err, "%q", wire.String())
	return back
}

// FuzzHeaders: a header that is accepted arrives under its name, with its value, and brings no other along.
func FuzzHeaders(f *testing.F) {
	f.Add("X-Team", "blue")
	f.Add("x-GITHUB-event", "a\r\nb: c")
	f.Add("ce-\x00", "\x7f")
	f.Add("Transfer-Encoding", "chunked")
	f.Fuzz(func(t *testing.T, name, value string) {
		built, err := webhook.BuildHeadersForTest([]delivery.Header{{Name: name, Value: value}})
		if err != nil {
			require.Empty(t, built)
			require.Contains(t, err.Error(), ": ", "a remedy")
			return
		}
		canonical := http.CanonicalHeaderKey(name)
		for _, reserved := range []string{"Ce-", "Webhook-", "X-Webhook-", "X-Github-", "X-Hub-Signature", "X-Shopify-", "X-Slack-", "Proxy-"} {
			require.False(t, strings.HasPrefix(canonical, reserved), canonical)
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://example.com/", http.NoBody)
		require.NoError(t, err)
		r.Header = built.Clone()
		r.Header["User-Agent"] = []string{"walhook"}
		got := onWire(t, r).Header
		require.Equal(t, "walhook", got.Get("User-Agent"))
		got.Del("User-Agent")
		got.Del("Content-Length")
		require.Equal(t, http.Header{canonical: {strings.Trim(value, " \t")}}, got)
	})
}

// FuzzURL: a URL that is accepted makes a request to its host; one that is not is never quoted.
func FuzzURL(f *testing.F) {
	for _, seed := range []string{"https://example.com:8443/a?b=c#d", "http://[::1%25eth0]/", "ftp://x", "http://u:p@h/", "http://h:0/", "http://h/%zz", "http://a b/", "//x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		u, err := webhook.ParseURLForTest(text)
		if err != nil {
			require.Nil(t, u)
			return
		}
		require.Contains(t, []string{"http", "https"}, u.Scheme)
		require.NotEmpty(t, u.Hostname())
		require.Nil(t, u.User)
		require.Empty(t, u.Fragment)
		r := (&http.Request{Method: http.MethodPost, URL: u, Host: u.Host, Header: http.Header{}}).WithContext(t.Context())
		var wire bytes.Buffer
		if r.Write(&wire) != nil {
			return // net/http refuses the host, before anything is sent
		}
		back, err := http.ReadRequest(bufio.NewReader(&wire))
		require.NoError(t, err, "%q", wire.String())
		require.Len(t, back.Header, 1+len(back.Header["Content-Length"]), "nothing but User-Agent")
	})
}

// FuzzPermission: only our own origin or an asterisk is consent, and a rate is never negative.
func FuzzPermission(f *testing.F) {
	f.Add("walhook", "120")
	f.Add("*", "*")
	f.Add(" WALHOOK\t", "-1")
	f.Add("walhook, *", "99999999999999999999")
	f.Fuzz(func(t *testing.T, origin, rate string) {
		h := http.Header{"Webhook-Allowed-Origin": {origin}, "Webhook-Allowed-Rate": {rate}}
		got, reason := webhook.PermissionForTest(h, "walhook")
		trimmed := strings.TrimSpace(origin)
		require.Equal(t, trimmed == "*" || strings.EqualFold(trimmed, "walhook"), reason == "")
		require.GreaterOrEqual(t, got.AllowedRate, 0)
		if reason != "" {
			require.Zero(t, got)
		}
	})
}

// FuzzChallenge: foreign text is no answer to a challenge that it cannot know, and each of the three forms is one,
// whatever the challenge.
func FuzzChallenge(f *testing.F) {
	f.Add([]byte("c"), "c")
	f.Add([]byte(`{"challenge":"c"}`), "\"}")
	f.Add([]byte("a=b&challenge=%63;"), "a&b=c")
	f.Fuzz(func(t *testing.T, body []byte, challenge string) {
		require.False(t, webhook.AnswersChallengeForTest(body, rand.Text()))
		if challenge == "" || strings.TrimSpace(challenge) != challenge || !utf8.ValidString(challenge) {
			return
		}
		text, err := json.Marshal(map[string]string{"challenge": challenge})
		require.NoError(t, err)
		for _, answer := range []string{challenge, string(text), "challenge=" + url.QueryEscape(challenge)} {
			require.True(t, webhook.AnswersChallengeForTest([]byte(" "+answer+"\r\n"), challenge), "%q", answer)
		}
	})
}
