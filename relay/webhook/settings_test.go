package webhook_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/webhook"
)

// TestSettingsThatMakeNoRequest has everything that SQL refuses too. Errors name what is wrong and the remedy.
func TestSettingsThatMakeNoRequest(t *testing.T) {
	server := newRawServer(t, answering(okAnswer))
	s := newSender(t)
	for _, test := range []struct {
		change func(*delivery.Settings)
		want   string
	}{
		{func(s *delivery.Settings) { s.URL = "" }, `url has the scheme "": use http or https`},
		{func(s *delivery.Settings) { s.URL = "ftp://example.com/" }, `url has the scheme "ftp": use http or https`},
		{func(s *delivery.Settings) { s.URL = "http:///path" }, "url names no host"},
		{func(s *delivery.Settings) { s.URL = "http://:80/" }, "url names no host"},
		{func(s *delivery.Settings) { s.URL = "http://u:" + secret + "@example.com/" }, "use"},
		{func(s *delivery.Settings) { s.URL = "http://example.com:99999/" }, `url has the port "99999": use 1 to 65535`},
		{func(s *delivery.Settings) { s.URL = "http://example.com:0/" }, `url has the port "0"`},
		{func(s *delivery.Settings) { s.URL = "http://example.com:" + secret + "/" }, "url cannot be parsed"},
		{func(s *delivery.Settings) { s.URL = "http://exa mple.com/?" + secret }, "url cannot be parsed"},
		{func(s *delivery.Settings) { s.URL = "http://example.com/\r\nX: y" }, "url cannot be parsed"},
		{func(s *delivery.Settings) { s.URL = "http://example.com/%zz" }, "url cannot be parsed"},
		{func(s *delivery.Settings) { s.URL = "http://[:::]/" }, "url cannot be parsed"},
		{func(s *delivery.Settings) { s.URL = "http://[1]:80/" }, "url cannot be parsed"},
		{func(s *delivery.Settings) { s.PayloadFormat = "xml" }, `payload_format "xml" is not known: use envelope, standard, cloudevents, cloudevents-binary or raw`},
		{func(s *delivery.Settings) { s.Signature = "md5" }, `signature "md5" is not known: use sha256, standard, standard-ed25519, github, stripe, shopify, slack or none`},
		{func(s *delivery.Settings) { s.Signature, s.PayloadFormat = "md5", "xml" }, `raw; signature "md5"`},
		{func(s *delivery.Settings) { s.PayloadVersion = 3 }, "payload_version 3 is not known: use 1 or 2"},
		{func(s *delivery.Settings) { s.PayloadVersion = -1 }, "payload_version -1 is not known"},
		{func(s *delivery.Settings) { s.Verification = "mail" }, `verification "mail" is not known: use none, cloudevents or slack`},
		{func(s *delivery.Settings) { s.PayloadFormat, s.BatchSize = "cloudevents-binary", 2 },
			"payload_format cloudevents-binary has no batches, and batch_size is 2: use cloudevents, or a batch_size of 1"},
	} {
		set := settings(server.url)
		test.change(set)
		requireSettingsError(t, send(t, s, set), test.want)
		require.ErrorContains(t, webhook.Check(set), strings.Split(test.want, "; ")[0])
		require.NotContains(t, webhook.Check(set).Error(), secret)
	}
	require.NoError(t, webhook.Check(settings(server.url)))
	require.Zero(t, server.connections.Load())
}

func TestHeadersThatAreRefused(t *testing.T) {
	server := newRawServer(t, answering(okAnswer))
	s := newSender(t)
	for _, name := range []string{
		"Host", "host", "Content-Length", "Connection", "Transfer-Encoding", "Trailer", "Upgrade", "TE", "Expect",
		"Keep-Alive", "Proxy-Authorization", "Content-Type", "Content-Encoding", "User-Agent", "X-Webhook-ID",
		"x-webhook-signature", "X-Webhook-Anything", "webhook-id", "Idempotency-Key", "X-Idempotency-Key", "Accept-Encoding",
		"X-Hub-Signature", "X-Hub-Signature-256", "x-github-event", "X-GitHub-Anything", "Stripe-Signature", "X-Shopify-Topic",
		"X-Slack-Signature", "ce-id", "CE-Anything", "WebHook-Request-Origin",
		"", "two words", "colon:", "new\nline", "nul\x00", "ümlaut",
	} {
		set := settings(server.url)
		set.Headers = []delivery.Header{{Name: name, Value: secret}}
		requireSettingsError(t, send(t, s, set), "header ")
	}
	for _, value := range []string{"a\r\nX-Injected: b", "a\nb", "a\rb", "nul\x00", "del\x7f"} {
		set := settings(server.url)
		set.Headers = []delivery.Header{{Name: "X-Fine", Value: value + secret}}
		requireSettingsError(t, send(t, s, set), `header "X-Fine" has a control character in its value: remove it`)
	}
	require.Zero(t, server.connections.Load())
}

func requireSettingsError(t *testing.T, out delivery.Outcome, text string) {
	t.Helper()
	require.Equal(t, delivery.ReasonSettings, out.Reason)
	require.Contains(t, out.Error, text)
	require.Zero(t, out.Status)
}

func TestHeadersThatPass(t *testing.T) {
	url, got := receiver(t, ok)
	set := settings(url)
	set.Headers = []delivery.Header{{Name: "authorization", Value: "Bearer abc"}, {Name: "X-Text", Value: "tab\tand ünïcode"},
		{Name: "Cell", Value: "not ce-"}, {Name: "traceparent", Value: "00-own-own-01"}, {Name: "X-Webhooks", Value: "1"}}
	require.Equal(t, delivery.ReasonNone, send(t, newSender(t), set).Reason)
	r := <-got
	require.Equal(t, "Bearer abc", r.header.Get("Authorization"))
	require.Equal(t, "tab\tand ünïcode", r.header.Get("X-Text"))
	require.Equal(t, "00-own-own-01", r.header.Get("Traceparent"))
	require.Equal(t, "not ce-", r.header.Get("Cell"))
}

func TestEventsThatDoNotFitHeaders(t *testing.T) {
	url, got := receiver(t, ok)
	s, set := newSender(t), settings(url)
	for _, test := range []struct{ kind, headers, event, parent, state string }{
		{"a.b", ``, "a.b", "", ""},
		{"a.b", `{}`, "a.b", "", ""},
		{"a\r\nX-Injected: 1", `{"traceparent":"00\r\nX-Injected: 1"}`, "a%0D%0AX-Injected:%201", "", ""},
		{"größe", `{"traceparent":"00-a-b-01","tracestate":"a\nb"}`, "größe", "00-a-b-01", ""},
		{"a", `{"traceparent":7,"tracestate":"a=1"}`, "a", "", ""},
		{"a", `{"traceparent":"` + strings.Repeat("f", 5<<10) + `"}`, "a", "", ""},
		{"a", `not json at all`, "a", "", ""},
	} {
		d := newDelivery(`{}`)
		d.Event.Type, d.Event.Headers = test.kind, []byte(test.headers)
		out := s.Send(t.Context(), []*delivery.Delivery{d}, set)
		require.True(t, out.Succeeded(), out.Error)
		r := <-got
		require.Equal(t, test.event, r.header.Get("X-Webhook-Event"))
		require.Equal(t, test.parent, r.header.Get("Traceparent"))
		require.Equal(t, test.state, r.header.Get("Tracestate"))
		require.Empty(t, r.header.Get("X-Injected"))
	}
}

// TestTraceContextIsNotMixed: the event's own comes before the subscription's, as a whole.
func TestTraceContextIsNotMixed(t *testing.T) {
	url, got := receiver(t, ok)
	s, set, d := newSender(t), settings(url), newDelivery(`{}`)
	set.Headers = []delivery.Header{{Name: "Traceparent", Value: "00-own-own-01"}, {Name: "Tracestate", Value: "own=1"}}
	for _, test := range []struct{ headers, parent, state string }{
		{`{}`, "00-own-own-01", "own=1"},
		{`{"tracestate":"a=1"}`, "00-own-own-01", "own=1"},
		{`{"traceparent":"00-a-b-01"}`, "00-a-b-01", ""},
		{`{"traceparent":"00-a-b-01","tracestate":"a=1"}`, "00-a-b-01", "a=1"},
	} {
		d.Event.Headers = []byte(test.headers)
		out := s.Send(t.Context(), []*delivery.Delivery{d}, set)
		require.True(t, out.Succeeded(), out.Error)
		r := <-got
		require.Equal(t, test.parent, r.header.Get("Traceparent"))
		require.Equal(t, test.state, r.header.Get("Tracestate"))
	}
}

func TestChangedSettingsApplyAtOnce(t *testing.T) {
	first, gotFirst := receiver(t, ok)
	second, gotSecond := receiver(t, ok)
	s, set := newSender(t), settings(first)
	require.Equal(t, delivery.ReasonNone, send(t, s, set).Reason)
	<-gotFirst

	changed := settings(second)
	changed.Headers = []delivery.Header{{Name: "X-New", Value: "1"}}
	changed.Revision = set.Revision + 1
	require.Equal(t, delivery.ReasonNone, send(t, s, changed).Reason)
	require.Equal(t, "1", (<-gotSecond).header.Get("X-New"))

	for _, change := range []func(){
		func() { changed.Signature = "github" },
		func() { changed.PayloadFormat = "standard" },
		func() { changed.PayloadFormat, changed.PayloadVersion = "envelope", 2 },
		func() { changed.BatchSize = 10 },
		func() { changed.Verification = delivery.VerifyCloudEvents },
	} {
		before := *changed
		send(t, s, &before)
		was := <-gotSecond
		change()
		send(t, s, changed)
		is := <-gotSecond
		require.NotEqual(t, []any{was.header, was.body}, []any{is.header, is.body}, "%+v", changed)
	}

	changed.Headers[0].Value = "2" // the same revision, changed in place
	require.Equal(t, delivery.ReasonNone, send(t, s, changed).Reason)
	require.Equal(t, "2", (<-gotSecond).header.Get("X-New"))
}

func TestManySubscriptionsAreBounded(t *testing.T) {
	server := newRawServer(t, answering(okAnswer))
	s := newSender(t)
	s.LimitEndpointsForTest(16)
	for range 100 {
		set := settings(server.url)
		set.SubscriptionID = uuid.New()
		require.Equal(t, delivery.ReasonNone, send(t, s, set).Reason)
	}
	require.LessOrEqual(t, s.EndpointsForTest(), 16)
}

func TestCredentialsAreBlottedOut(t *testing.T) {
	server := newRawServer(t, answering("HTTP/1.1 400 x\r\nContent-Length: 60\r\n\r\nBearer token-12345678, token-12345678, key=abcdefgh12 older!"))
	set := settings(server.url + "?key=abcdefgh12")
	set.PreviousSecret = "older"
	set.Headers = []delivery.Header{{Name: "Authorization", Value: "Bearer token-12345678"}, {Name: "X-Team", Value: "Bearer to"}}
	out := send(t, newSender(t), set)
	require.Equal(t, delivery.ReasonStatus, out.Reason)
	require.Equal(t, "[redacted], [redacted], [redacted] [redacted]!", strings.TrimSpace(out.Body))
}

// A receiver may show what it got value by value, in JSON, or in an answer of which only the beginning is kept.
func TestCredentialsAreBlottedOutInEveryForm(t *testing.T) {
	t.Parallel()
	s := webhook.New(webhook.Options{MaxResponse: 24, Policy: webhook.Policy{AllowLoopback: true}, Log: zerolog.Nop()})
	t.Cleanup(s.Close)
	for body, want := range map[string]string{
		`{"key":"abc/efgh12"}`:          `{"key":"[redacted]"}`,
		`{"s":"say \"hello\""}`:         `{"s":"[redacted]"}`,
		`ten bytes, say "hello"`:        `ten bytes, [redacted]`,
		`fifteen bytes, say "hello"`:    `fifteen bytes, `,
		`twenty-one bytes, is say "hel`: `twenty-one bytes, is say`,
	} {
		set := settings(newRawServer(t, answering("HTTP/1.1 400 x\r\nContent-Length: "+strconv.Itoa(len(body))+"\r\n\r\n"+body)).url + "?key=abc%2Fefgh12")
		set.Secret = `say "hello"`
		require.Equal(t, want, send(t, s, set).Body, body)
	}
}
