package webhook_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/event"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/webhook"
)

// understood reads a request as the CloudEvents SDK does.
func understood(t *testing.T, r request) *event.Event {
	t.Helper()
	message := cehttp.NewMessage(r.header, http.NoBody)
	message.BodyReader = readCloser{strings.NewReader(string(r.body))}
	e, err := binding.ToEvent(t.Context(), message)
	require.NoError(t, err)
	require.NoError(t, e.Validate())
	return e
}

type readCloser struct{ *strings.Reader }

func (readCloser) Close() error { return nil }

// requireFull checks that e is fullDelivery.
func requireFull(t *testing.T, e event.Event) {
	t.Helper()
	require.Equal(t, "1.0", e.SpecVersion())
	require.Equal(t, "0192f0c1-2345-8678-9abc-def012345678", e.ID())
	require.Equal(t, "/clinics/7", e.Source())
	require.Equal(t, "patient.created", e.Type())
	require.True(t, e.Time().Equal(time.Date(2026, 3, 1, 12, 30, 0, 120_000_000, time.UTC)), e.Time())
	require.Equal(t, "patient/7", e.Subject())
	require.Equal(t, "application/json", e.DataContentType())
	require.Equal(t, map[string]any{
		"correlationid": "corr-1", "tenant": "north",
		"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tracestate": "a=1, b=2",
	}, e.Extensions())
	require.Equal(t, longNumbers, string(e.Data()))
}

func TestCloudEvents(t *testing.T) {
	address, got := receiver(t, ok)
	s, set := newSender(t), settings(address)

	set.PayloadFormat = "cloudevents"
	r := post(t, s, got, set, fullDelivery())
	require.Equal(t, "application/cloudevents+json", r.header.Get("Content-Type"))
	require.Equal(t, `{"specversion":"1.0","id":"0192f0c1-2345-8678-9abc-def012345678","source":"/clinics/7","type":"patient.created",`+
		`"time":"2026-03-01T12:30:00.120000Z","subject":"patient/7","correlationid":"corr-1","tenant":"north",`+
		`"traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01","tracestate":"a=1, b=2",`+
		`"datacontenttype":"application/json","data":`+longNumbers+`}`, string(r.body))
	requireFull(t, *understood(t, r))
	require.Equal(t, "a=1, b=2", r.header.Get("Tracestate"))
	require.Empty(t, r.header.Get("ce-id"))

	set.PayloadFormat = "cloudevents-binary"
	r = post(t, s, got, set, fullDelivery())
	require.Equal(t, "application/json", r.header.Get("Content-Type"))
	require.Equal(t, longNumbers, string(r.body))
	require.Equal(t, "a=1,%20b=2", r.header.Get("ce-tracestate"))
	decoded := *understood(t, r)
	requireFull(t, unescaped(decoded))
}

// unescaped decodes extension attributes: the SDK leaves headers as they are.
func unescaped(e event.Event) event.Event {
	for name, value := range e.Extensions() {
		if text, err := url.PathUnescape(value.(string)); err == nil {
			e.SetExtension(name, text)
		}
	}
	return e
}

func TestCloudEventOfLittle(t *testing.T) {
	address, got := receiver(t, ok)
	s, set := newSender(t), settings(address)
	set.PayloadFormat = "cloudevents"
	d := newDelivery("")
	d.Event.Key = " " // which the SDK takes for none, and refuses
	r := post(t, s, got, set, d)
	require.Equal(t, `{"specversion":"1.0","id":"0192f0c1-2345-8678-9abc-def012345678","source":"walhook","type":"patient.created",`+
		`"time":"2026-03-01T12:30:00.120000Z","datacontenttype":"application/json"}`, string(r.body))
	require.Empty(t, understood(t, r).Extensions())

	set.PayloadFormat = "cloudevents-binary"
	r = post(t, s, got, set, newDelivery("{}"))
	for name := range r.header {
		if strings.HasPrefix(name, "Ce-") {
			require.Contains(t, []string{"Ce-Specversion", "Ce-Id", "Ce-Source", "Ce-Type", "Ce-Time"}, name)
		}
	}
	require.Empty(t, understood(t, r).Extensions())
}

func TestCloudEventsBatch(t *testing.T) {
	address, got := receiver(t, ok)
	s, set := newSender(t), settings(address)
	first, second := twins()
	for _, format := range []string{"cloudevents", "cloudevents-binary"} { // the latter after a change of the settings
		set.PayloadFormat = format
		r := post(t, s, got, set, first, second)
		require.Equal(t, "application/cloudevents-batch+json", r.header.Get("Content-Type"))
		require.Empty(t, r.header.Get("ce-id"))
		message := cehttp.NewMessage(r.header, readCloser{strings.NewReader(string(r.body))})
		require.Equal(t, binding.EncodingBatch, message.ReadEncoding())
		events, err := binding.ToEvents(t.Context(), message, message.BodyReader)
		require.NoError(t, err)
		require.Len(t, events, 2)
		requireFull(t, events[0])
		require.NoError(t, events[1].Validate())
		require.Equal(t, second.ID.String(), events[1].ID())
	}
	set.PayloadFormat, set.BatchSize = "cloudevents", 2
	r := post(t, s, got, set, second)
	require.Equal(t, "application/cloudevents-batch+json", r.header.Get("Content-Type"))
	require.True(t, strings.HasPrefix(string(r.body), `[{"specversion"`))
}

// TestAttributesInHeaders has the values of the HTTP binding's section 3.1.3.2, and what CloudEvents has no
// place for.
func TestAttributesInHeaders(t *testing.T) {
	address, got := receiver(t, ok)
	s, set := newSender(t), settings(address)
	set.PayloadFormat = "cloudevents-binary"
	for value, want := range map[string]string{
		"plain!#$&'()*+,-./:;<=>?@[\\]^_`{|}~": "plain!#$&'()*+,-./:;<=>?@[\\]^_`{|}~",
		"Euro € 😀":                             "Euro%20%E2%82%AC%20%F0%9F%98%80",
		`say "100%"`:                           "say%20%22100%25%22",
		" ends ":                               "%20ends%20",
		"a\r\nX-Injected: b":                   "a%EF%BF%BD%EF%BF%BDX-Injected:%20b",
		"nul\x00 del\x7f c1\u0085":             "nul%EF%BF%BD%20del%EF%BF%BD%20c1%EF%BF%BD",
		"\ufdd0\uffff\U0010fffe\xff":           "%EF%BF%BD%EF%BF%BD%EF%BF%BD%EF%BF%BD",
	} {
		d := newDelivery("{}")
		d.Event.Key, d.Event.CorrelationID = value, value
		r := post(t, s, got, set, d)
		require.Equal(t, want, r.header.Get("ce-subject"), "%q", value)
		require.Equal(t, want, r.header.Get("ce-correlationid"), "%q", value)
		require.Empty(t, r.header.Get("X-Injected"))
		understood(t, r)
	}
}

func TestSources(t *testing.T) {
	for source, want := range map[string]string{
		"":                                 "walhook",
		"billing":                          "billing",
		"https://example.com/a?b=c#d":      "https://example.com/a?b=c#d",
		"urn:uuid:6e8bc430":                "urn:uuid:6e8bc430",
		"/clinics/7%20north":               "/clinics/7%20north",
		"two words":                        "two%20words",
		"100%":                             "100%25",
		"%zz%4":                            "%25zz%254",
		"größe":                            "gr%C3%B6%C3%9Fe",
		"a#b#c":                            "a#b%23c",
		"a[1]\\{}|^`\"<>":                  "a%5B1%5D%5C%7B%7D%7C%5E%60%22%3C%3E",
		"1st: billing":                     "1st%3A%20billing",
		":nothing":                         "%3Anothing",
		"#":                                "%23",
		"//host:port/x":                    "%2F%2Fhost%3Aport%2Fx",
		"a\r\nb\x00":                       "a%0D%0Ab%00",
		"service.name/v1@host;x=1,y='2'*!": "service.name/v1@host;x=1,y='2'*!",
	} {
		require.Equal(t, want, webhook.URIReferenceForTest(source))
	}
}

// FuzzCloudEvent: whatever the event holds, both modes say the same, the SDK takes it, and data is the payload.
func FuzzCloudEvent(f *testing.F) {
	f.Add("a.b", "source", "key", "tenant", "corr", []byte(`{"n":1e999}`))
	f.Add("\"\\\x00\xff\u2028<>&", "1:\x00#%#", " \x7f", "é%", "😀", []byte(`"\ud800"`))
	f.Fuzz(func(t *testing.T, kind, source, key, tenant, correlation string, payload []byte) {
		if strings.TrimSpace(kind) == "" { // no event is without a type, and the SDK trims it
			kind = "a"
		}
		if !json.Valid(payload) {
			payload = []byte("{}")
		}
		d := newDelivery(string(payload))
		d.Event.Type, d.Event.Source, d.Event.Key, d.Event.Tenant, d.Event.CorrelationID = kind, source, key, tenant, correlation
		structured := webhook.CloudEventForTest(d)
		var e event.Event
		require.NoError(t, json.Unmarshal(structured, &e), "%s", structured)
		require.NoError(t, e.Validate())
		require.True(t, strings.HasSuffix(string(structured), `,"data":`+string(payload)+`}`))
		_, err := url.Parse(e.Source())
		require.NoError(t, err)

		h := webhook.CloudEventHeadersForTest(d)
		var said map[string]json.RawMessage // the SDK tidies what it reads
		require.NoError(t, json.Unmarshal(structured, &said))
		for _, name := range []string{"ce-type", "ce-subject", "ce-source", "ce-tenant", "ce-correlationid"} {
			var want string
			if text, ok := said[strings.TrimPrefix(name, "ce-")]; ok {
				require.NoError(t, json.Unmarshal(text, &want))
			}
			require.Equal(t, -1, strings.IndexFunc(h.Get(name), func(r rune) bool { return r <= ' ' || r > '~' }))
			decoded, err := url.PathUnescape(h.Get(name))
			require.NoError(t, err)
			require.True(t, utf8.ValidString(decoded))
			require.Equal(t, want, decoded)
		}
	})
}
