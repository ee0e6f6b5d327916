package webhook_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/webhook"
)

// asks are settings with a handshake.
func asks(url string, v delivery.Verification) *delivery.Settings {
	set := settings(url)
	set.Verification, set.Unverified = v, true
	return set
}

func TestNoHandshakeAsksNothing(t *testing.T) {
	server := newRawServer(t, answering(okAnswer))
	for _, v := range []delivery.Verification{"", delivery.VerifyNone} {
		got, err := newSender(t).Verify(t.Context(), asks(server.url, v))
		require.NoError(t, err)
		require.Zero(t, got)
	}
	require.Zero(t, server.connections.Load())
}

func TestCloudEventsHandshake(t *testing.T) {
	var answer http.Header
	status := http.StatusOK
	url, got := receiver(t, func(w http.ResponseWriter, _ *http.Request) {
		for name, values := range answer {
			w.Header()[name] = values
		}
		w.WriteHeader(status)
	})
	s := webhook.New(webhook.Options{UserAgent: "walhook/1.2.3", Origin: "events.example.com", Policy: webhook.Policy{AllowLoopback: true}, Log: zerolog.Nop()})
	t.Cleanup(s.Close)
	for name, test := range map[string]struct {
		origin, rate string
		status       int
		want         int
		err          string
	}{
		"our origin":            {"events.example.com", "120", 200, 120, ""},
		"in other letters":      {" Events.Example.COM ", "120", 200, 120, ""},
		"any origin":            {"*", "", 204, 0, ""},
		"no limit":              {"*", "*", 200, 0, ""},
		"status means nothing":  {"*", "7", 405, 7, ""},
		"rate without sense":    {"*", "fast", 200, 0, ""},
		"negative rate":         {"*", "-5", 200, 0, ""},
		"signed rate":           {"*", "+5", 200, 0, ""},
		"immense rate":          {"*", "99999999999999999999", 200, 0, ""},
		"no origin":             {"", "120", 200, 0, "OPTIONS was answered with HTTP 200 OK and no WebHook-Allowed-Origin: answer it with WebHook-Allowed-Origin: events.example.com"},
		"another origin":        {"example.com", "", 200, 0, `HTTP 200 OK and WebHook-Allowed-Origin "example.com": answer`},
		"refused":               {"", "", 405, 0, "HTTP 405 Method Not Allowed and no WebHook-Allowed-Origin"},
		"a redirect":            {"", "", 302, 0, "HTTP 302 Found and no WebHook-Allowed-Origin"},
		"the secret as origin":  {secret, "", 200, 0, `"[redacted]"`},
		"a list is no asterisk": {"*, *", "", 200, 0, `"*, *"`},
	} {
		t.Run(name, func(t *testing.T) {
			answer, status = http.Header{}, test.status
			if test.origin != "" {
				answer.Set("WebHook-Allowed-Origin", test.origin)
			}
			if test.rate != "" {
				answer.Set("WebHook-Allowed-Rate", test.rate)
			}
			set := asks(url+"/hook?x=1", delivery.VerifyCloudEvents)
			set.Headers = []delivery.Header{{Name: "Authorization", Value: "Bearer abc"}}
			set.RateLimit = test.status % 200 // none when it is 200
			verified, err := s.Verify(t.Context(), set)
			if test.err == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, test.err)
				require.NotContains(t, err.Error(), secret)
			}
			require.Equal(t, test.want, verified.AllowedRate)

			r := <-got
			require.Equal(t, "OPTIONS", r.method)
			require.Equal(t, "/hook?x=1", r.path)
			require.Empty(t, r.body)
			want := http.Header{"Authorization": {"Bearer abc"}, "User-Agent": {"walhook/1.2.3"}, "Webhook-Request-Origin": {"events.example.com"}}
			if set.RateLimit > 0 {
				want.Set("WebHook-Request-Rate", fmt.Sprint(set.RateLimit*60))
			}
			require.Equal(t, want, r.header)
		})
	}
}

// TestRequestsNameTheOriginThatWasAllowed: what asked for permission says so on every delivery.
func TestRequestsNameTheOriginThatWasAllowed(t *testing.T) {
	url, got := receiver(t, ok)
	s := newSender(t)
	require.True(t, func() bool { out := send(t, s, asks(url, delivery.VerifyCloudEvents)); return out.Succeeded() }())
	require.Equal(t, "walhook", (<-got).header.Get("WebHook-Request-Origin"), "the default")
	require.True(t, func() bool { out := send(t, s, settings(url)); return out.Succeeded() }())
	require.Empty(t, (<-got).header.Get("WebHook-Request-Origin"))
}

func TestSlackHandshake(t *testing.T) {
	var answer func(challenge string) (int, string)
	var got chan request
	address, got := receiver(t, func(w http.ResponseWriter, _ *http.Request) {
		status, body := answer(requireChallenge(t, <-got))
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
	s := newSender(t)
	for name, test := range map[string]struct {
		answer func(challenge string) (int, string)
		err    string
	}{
		"text":               {func(c string) (int, string) { return 200, c + "\n" }, ""},
		"JSON":               {func(c string) (int, string) { return 200, `{"ok":true,"challenge": "` + c + `"}` }, ""},
		"form":               {func(c string) (int, string) { return 200, "challenge=" + url.QueryEscape(c) }, ""},
		"JSON without it":    {func(string) (int, string) { return 200, `{"ok":true}` }, "is not the challenge: answer with its text"},
		"JSON of another":    {func(string) (int, string) { return 200, `{"challenge":"x"}` }, "is not the challenge"},
		"JSON of a number":   {func(string) (int, string) { return 200, `{"challenge":1}` }, "is not the challenge"},
		"nothing":            {func(string) (int, string) { return 200, "" }, "is not the challenge"},
		"a page with it":     {func(c string) (int, string) { return 200, "<p>" + c + "</p>" }, "is not the challenge"},
		"behind much else":   {func(c string) (int, string) { return 200, strings.Repeat(" ", 5<<10) + c }, "is not the challenge"},
		"another success":    {func(c string) (int, string) { return 201, c }, "answered with HTTP 201 Created: answer it with 200 and the challenge"},
		"an error":           {func(c string) (int, string) { return 403, c }, "answered with HTTP 403 Forbidden"},
		"the secret, echoed": {func(string) (int, string) { return 200, secret }, "is not the challenge"},
	} {
		t.Run(name, func(t *testing.T) {
			answer = test.answer
			_, err := s.Verify(t.Context(), asks(address, delivery.VerifySlack))
			if test.err == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, test.err)
			require.NotContains(t, err.Error(), secret)
		})
	}
}

// requireChallenge checks that r is a challenge, signed like a delivery, and returns its text.
func requireChallenge(t *testing.T, r request) string {
	var body struct{ Type, Token, Challenge string }
	assert.NoError(t, json.Unmarshal(r.body, &body))
	assert.Equal(t, "url_verification", body.Type)
	assert.GreaterOrEqual(t, len(body.Challenge), 26)
	assert.Equal(t, `{"type":"url_verification","token":"","challenge":"`+body.Challenge+`"}`, string(r.body))
	assert.Equal(t, "POST", r.method)
	assert.Equal(t, "application/json", r.header.Get("Content-Type"))
	assert.Equal(t, webhook.Sign(secret, r.body), r.header.Get("X-Webhook-Signature"))
	assert.Equal(t, "url_verification", r.header.Get("X-Webhook-Event"))
	return body.Challenge
}

// TestChallengesAreSignedAsDeliveriesAre, and no two are the same.
func TestChallengesAreSignedAsDeliveriesAre(t *testing.T) {
	address, got := receiver(t, ok)
	s, set := newSender(t), asks(address, delivery.VerifySlack)
	set.Signature = "slack"
	seen := map[string]bool{}
	for range 2 {
		_, err := s.Verify(t.Context(), set)
		require.Error(t, err)
		r := <-got
		value, want := vendors["slack"](r, secret)
		require.Equal(t, want, value)
		seen[string(r.body)] = true
	}
	require.Len(t, seen, 2)
}

// TestHandshakesThatFail has what ends a handshake of either kind without an answer.
func TestHandshakesThatFail(t *testing.T) {
	elsewhere := newRawServer(t, answering(okAnswer))
	for name, test := range map[string]struct {
		handle func(*rawConn)
		err    string
	}{
		"no answer":          {hold, "no answer within 200ms"},
		"headers drop wise":  {drip("HTTP/1.1 200 OK\r\nA: ", "a"), "no answer within 200ms"},
		"broken":             {func(c *rawConn) { c.read() }, "the connection broke before an answer"},
		"garbage":            {answeringOnce("HTTP/9 x\r\n\r\n"), "not valid HTTP"},
		"a redirect":         {answeringOnce("HTTP/1.1 307 x\r\nContent-Length: 0\r\nLocation: " + elsewhere.url + "\r\n\r\n"), "HTTP 307"},
		"an endless page":    {drip("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", "x"), ""},
		"a switch":           {answeringOnce("HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"), "HTTP 101"},
		"the secret, echoed": {answeringOnce("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nWebHook-Allowed-Origin: " + secret + "\r\n\r\n"), ""},
	} {
		for _, v := range []delivery.Verification{delivery.VerifyCloudEvents, delivery.VerifySlack} {
			t.Run(name+", "+string(v), func(t *testing.T) {
				set := asks(newRawServer(t, test.handle).url+"?token=hunter22", v)
				set.Timeout = 200 * time.Millisecond
				_, err := newSender(t).Verify(t.Context(), set)
				require.ErrorContains(t, err, test.err)
				require.NotContains(t, err.Error(), secret)
				require.NotContains(t, err.Error(), "hunter22")
			})
		}
	}
	require.Zero(t, elsewhere.connections.Load())
}

func TestHandshakeWithBadSettings(t *testing.T) {
	server := newRawServer(t, answering(okAnswer))
	set := asks(server.url, delivery.VerifySlack)
	set.Signature = "md5"
	_, err := newSender(t).Verify(t.Context(), set)
	require.ErrorContains(t, err, `signature "md5" is not known`)
	require.Zero(t, server.connections.Load())
}

// TestHandshakeStops: who stopped it can tell that from a receiver's failure.
func TestHandshakeStops(t *testing.T) {
	for _, v := range []delivery.Verification{delivery.VerifyCloudEvents, delivery.VerifySlack} {
		ctx, cancel := context.WithCancel(t.Context())
		server := newRawServer(t, func(c *rawConn) { c.read(); cancel(); hold(c) })
		_, err := newSender(t).Verify(ctx, asks(server.url, v))
		require.ErrorIs(t, err, context.Canceled)
	}
}
