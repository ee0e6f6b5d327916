package webhook_test

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/webhook"
)

func TestRequest(t *testing.T) {
	url, got := receiver(t, ok)
	d := newDelivery(`{"name":"Ada"}`)
	d.Attempts = 2
	d.Event.Headers = []byte(`{"traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01","tracestate":"a=1","other":"x"}`)
	set := settings(url + "/hook?x=1#part")
	set.Headers = []delivery.Header{{Name: "x-team", Value: "blue"}, {Name: "X-Team", Value: "red"}}

	out := newSender(t).Send(t.Context(), []*delivery.Delivery{d}, set)
	checkOutcome(t, out)
	require.Equal(t, delivery.ReasonNone, out.Reason, out.Error)
	require.Equal(t, 200, out.Status)
	require.Positive(t, out.Duration)

	r := <-got
	require.Equal(t, "POST", r.method)
	require.Equal(t, "/hook?x=1", r.path)
	require.Equal(t, strings.TrimPrefix(url, "http://"), r.host)
	body := `{"event_type":"patient.created","event_data":{"name":"Ada"},"webhook_id":"0192f0c1-2345-8678-9abc-def012345678","timestamp":"2026-03-01T12:30:00.120000Z","attempt":3}`
	require.Equal(t, body, string(r.body))
	require.Equal(t, http.Header{
		"Content-Type":        {"application/json"},
		"Content-Length":      {strconv.Itoa(len(body))},
		"User-Agent":          {"walhook/1.2.3"},
		"X-Webhook-Event":     {"patient.created"},
		"X-Webhook-Id":        {"0192f0c1-2345-8678-9abc-def012345678"},
		"X-Webhook-Attempt":   {"3"},
		"X-Webhook-Signature": {webhook.Sign(secret, r.body)},
		"X-Team":              {"blue", "red"},
		"Traceparent":         {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
		"Tracestate":          {"a=1"},
	}, r.header)
}

func TestRawFormatSendsThePayloadAlone(t *testing.T) {
	url, got := receiver(t, ok)
	s, set := newSender(t), settings(url)
	set.PayloadFormat = "raw"
	for _, payload := range []string{`{"n":1}`, ""} {
		out := s.Send(t.Context(), []*delivery.Delivery{newDelivery(payload)}, set)
		require.True(t, out.Succeeded(), out.Error)
		r := <-got
		require.Equal(t, payload, string(r.body))
		require.Equal(t, webhook.Sign(secret, r.body), r.header.Get("X-Webhook-Signature"))
	}
}

func TestPayloadsArriveUnchanged(t *testing.T) {
	url, got := receiver(t, ok)
	s, set := newSender(t), settings(url)
	for name, payload := range map[string]string{
		"number of 30 digits": `{"n":123456789012345678901234567890,"f":0.1000000000000000055511151231257827}`,
		"unicode":             `{"name":"Ωmega 漢字 🎈","esc":"\u2028\ud83c\udf88","sep":"` + "\u2028" + `"}`,
		"spaces":              "{ \"a\" :\t1 }",
		"9 MB":                `{"blob":"` + strings.Repeat("x", 9<<20) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			out := s.Send(t.Context(), []*delivery.Delivery{newDelivery(payload)}, set)
			require.True(t, out.Succeeded(), out.Error)
			r := <-got
			require.True(t, strings.Contains(string(r.body), `"event_data":`+payload+`,"webhook_id"`))
			require.Equal(t, webhook.Sign(secret, r.body), r.header.Get("X-Webhook-Signature"))
		})
	}
}

// TestEveryStatus goes through every status that a response can end with, each behind interim responses and
// with every kind of Retry-After.
func TestEveryStatus(t *testing.T) {
	s := newSender(t)
	answer := make(chan string, 1)
	server := newRawServer(t, func(c *rawConn) {
		for c.read() && c.write(<-answer) {
		}
	})
	set := settings(server.url)
	const noise = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nRetry-After: 9\r\nLocation: /x\r\n\r\n"
	waits := []struct {
		header string
		want   time.Duration // of a 429 or 503
	}{
		{"Retry-After: 7\r\n", 7 * time.Second},
		{"Retry-After: 0\r\n", time.Second},
		{"Retry-After: -7\r\n", 0},
		{"Retry-After: soon\r\n", 0},
		{"Retry-After:\r\n", 0},
		{"Retry-After: 315360000\r\n", 24 * time.Hour},
		{"Retry-After: Fri, 01 Jan 2100 00:00:00 GMT\r\n", 24 * time.Hour},
		{"Retry-After: Fri, 01 Jan 1999 00:00:00 GMT\r\n", 0},
		{"Retry-After: 7\r\nRetry-After: 8\r\n", 7 * time.Second},
		{"", 0},
	}
	for code := 200; code <= 999; code++ {
		wait := waits[code%len(waits)]
		if code != 429 && code != 503 {
			checkStatus(t, s, set, answer, code, noise, wait.header, 0)
			continue
		}
		for _, wait := range waits {
			checkStatus(t, s, set, answer, code, noise, wait.header, wait.want)
		}
	}
	require.EqualValues(t, 1, server.connections.Load(), "responses without a body keep the connection")
}

func checkStatus(t *testing.T, s *webhook.Sender, set *delivery.Settings, answer chan string, code int, noise, header string, wait time.Duration) {
	t.Helper()
	answer <- noise + "HTTP/1.1 " + strconv.Itoa(code) + " Whatever\r\nContent-Length: 0\r\n" + header + "\r\n"
	out := send(t, s, set)
	want := delivery.ReasonStatus
	switch code / 100 {
	case 2:
		want = delivery.ReasonNone
	case 3:
		want = delivery.ReasonRedirect
	}
	require.Equal(t, want, out.Reason, code)
	require.Equal(t, code, out.Status)
	require.Equal(t, code == 410, out.Gone, code)
	require.Equal(t, want != delivery.ReasonNone, strings.Contains(out.Error, strconv.Itoa(code)), out.Error)
	require.NotContains(t, out.Error, "Whatever", "the phrase is the server's to choose")
	require.Equal(t, wait, out.RetryAfter, "%d %s", code, header)
}

func TestSwitchingProtocolsIsNoAnswer(t *testing.T) {
	server := newRawServer(t, answering("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"))
	out := send(t, newSender(t), settings(server.url))
	require.Equal(t, delivery.ReasonStatus, out.Reason)
	require.Equal(t, 101, out.Status)
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	elsewhere := newRawServer(t, answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	s := newSender(t)
	for location, text := range map[string]string{
		elsewhere.url + "/x?token=" + secret: "on 127.0.0.1",
		"/relative":                          "on 127.0.0.1",
		"http://user:pass@other.example/x":   "on other.example",
		"http://bad host/%zz":                "Location is not valid",
		":":                                  "Location is not valid",
		"":                                   "redirects are not followed",
	} {
		for _, code := range []int{301, 302, 303, 307, 308} {
			server := newRawServer(t, answering("HTTP/1.1 "+strconv.Itoa(code)+" x\r\nContent-Length: 2\r\nLocation: "+location+"\r\n\r\nhi"))
			out := send(t, s, settings(server.url))
			require.Equal(t, delivery.ReasonRedirect, out.Reason, location)
			require.Equal(t, code, out.Status)
			require.Equal(t, "hi", out.Body)
			require.Contains(t, out.Error, text)
			require.NotContains(t, out.Error, "pass")
			require.EqualValues(t, 1, server.requests.Load())
		}
	}
	require.Zero(t, elsewhere.connections.Load(), "nothing is sent to where a redirect points")
}

func TestParentStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	server := newRawServer(t, func(c *rawConn) {
		c.read()
		cancel()
		_, _ = io.Copy(io.Discard, c)
	})
	s := newSender(t)
	out := sendContext(t, ctx, s, settings(server.url))
	require.Equal(t, delivery.ReasonStopped, out.Reason)
	require.False(t, out.Counts())

	out = sendContext(t, ctx, s, settings(server.url))
	require.Equal(t, delivery.ReasonStopped, out.Reason, "a context that has ended already")
	require.EqualValues(t, 1, server.requests.Load())
}

func TestParentStopsAfterTheAnswer(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	server := newRawServer(t, func(c *rawConn) {
		c.read()
		c.write("HTTP/1.1 500 x\r\nContent-Length: 9\r\n\r\nhalf")
		cancel()
		_, _ = io.Copy(io.Discard, c)
	})
	out := sendContext(t, ctx, newSender(t), settings(server.url))
	if out.Reason == delivery.ReasonStopped {
		return // the stop overtook the answer
	}
	require.Equal(t, delivery.ReasonStatus, out.Reason, "an answer that came is an answer")
	require.Equal(t, 500, out.Status)
}

// TestAnErrorInTheBodyIsASuccess: the status decides alone, and the body is kept for people.
func TestAnErrorInTheBodyIsASuccess(t *testing.T) {
	const body = `{"error":"<script>alert(1)</script>"}`
	url, _ := receiver(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })
	out := send(t, newSender(t), settings(url))
	require.True(t, out.Succeeded())
	require.Equal(t, body, out.Body)
}
