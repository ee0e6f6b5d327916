package webhook_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/webhook"
)

// traced makes a sender whose spans are kept.
func traced(t *testing.T) (*webhook.Sender, *tracetest.InMemoryExporter) {
	t.Helper()
	spans := tracetest.NewInMemoryExporter()
	provider := sdk.NewTracerProvider(sdk.WithSyncer(spans))
	s := webhook.New(webhook.Options{Policy: webhook.Policy{AllowLoopback: true}, Tracer: provider.Tracer("test"), Log: zerolog.Nop()})
	t.Cleanup(s.Close)
	return s, spans
}

// of returns a span's attributes.
func of(s tracetest.SpanStub) map[attribute.Key]any {
	all := map[attribute.Key]any{}
	for _, a := range s.Attributes {
		all[a.Key] = a.Value.AsInterface()
	}
	return all
}

func only(t *testing.T, spans *tracetest.InMemoryExporter) tracetest.SpanStub {
	t.Helper()
	all := spans.GetSpans()
	require.Len(t, all, 1)
	spans.Reset()
	return all[0]
}

const (
	traceID = "4bf92f3577b34da6a3ce929d0e0e4736"
	spanID  = "00f067aa0ba902b7"
)

// inTrace is a delivery of an event that is part of a trace.
func inTrace(flags string) *delivery.Delivery {
	d := newDelivery(`{"n":1}`)
	d.Event.ID = uuid.MustParse("0192f0c1-2345-7678-9abc-def012345678")
	d.Event.Headers = []byte(`{"traceparent":"00-` + traceID + `-` + spanID + `-` + flags + `","tracestate":"a=1,b=2"}`)
	return d
}

func TestAttemptIsASpanOfItsEventsTrace(t *testing.T) {
	t.Parallel()
	url, got := receiver(t, ok)
	s, spans := traced(t)
	set := settings(url + "/hook?token=" + secret)
	set.Name = "clinic"
	d := inTrace("01")
	d.Attempts, d.Event.CommittedAt = 2, time.Now().Add(-time.Minute)
	out := s.Send(t.Context(), []*delivery.Delivery{d}, set)
	require.True(t, out.Succeeded(), out.Error)
	r, span := <-got, only(t, spans)

	require.Equal(t, "send webhook", span.Name)
	require.Equal(t, trace.SpanKindClient, span.SpanKind)
	require.Equal(t, traceID, span.SpanContext.TraceID().String())
	require.Equal(t, spanID, span.Parent.SpanID().String())
	require.True(t, span.Parent.IsRemote())
	require.Equal(t, []string{"00-" + traceID + "-" + span.SpanContext.SpanID().String() + "-01"}, r.header["Traceparent"])
	require.Equal(t, []string{"a=1,b=2"}, r.header["Tracestate"])
	require.Equal(t, codes.Unset, span.Status.Code)
	require.Equal(t, out.StartedAt.UnixNano(), span.StartTime.UnixNano())

	all := of(span)
	since := all["walhook.commit_to_attempt_ms"]
	require.GreaterOrEqual(t, since, int64(60_000))
	delete(all, "walhook.commit_to_attempt_ms")
	host, port, _ := strings.Cut(strings.TrimPrefix(url, "http://"), ":")
	require.Equal(t, map[attribute.Key]any{
		"http.request.method": "POST", "http.response.status_code": int64(200), "url.full": url + "/hook",
		"server.address": host, "server.port": number(t, port),
		"messaging.system": "walhook", "messaging.operation.name": "send", "messaging.operation.type": "send",
		"messaging.message.id": d.ID.String(), "messaging.message.body.size": int64(len(r.body)), "messaging.destination.name": "clinic",
		"walhook.event_type": "patient.created", "walhook.event_id": d.Event.ID.String(), "walhook.attempt": int64(3),
		"walhook.subscription_id": set.SubscriptionID.String(),
	}, all)
}

func number(t *testing.T, text string) (n int64) {
	t.Helper()
	for _, digit := range text {
		n = 10*n + int64(digit-'0')
	}
	return n
}

func TestFailedAttemptIsAnErrorSpan(t *testing.T) {
	t.Parallel()
	url, _ := receiver(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })
	s, spans := traced(t)
	out := s.Send(t.Context(), []*delivery.Delivery{inTrace("01")}, settings(url))
	span := only(t, spans)
	require.Equal(t, sdk.Status{Code: codes.Error, Description: out.Error}, span.Status)
	require.Equal(t, "503", of(span)["error.type"])
	require.EqualValues(t, 503, of(span)["http.response.status_code"])

	closed := newRawServer(t, func(c *rawConn) { c.read(); c.reset() })
	out = s.Send(t.Context(), []*delivery.Delivery{inTrace("01")}, settings(closed.url+"?token="+secret))
	span = only(t, spans)
	require.Equal(t, delivery.ReasonReset, out.Reason)
	require.Equal(t, "reset", of(span)["error.type"])
	require.NotContains(t, of(span), attribute.Key("http.response.status_code"))
	for key, value := range of(span) {
		require.NotContains(t, fmt.Sprint(value), secret, key)
	}
	require.NotContains(t, span.Status.Description, secret)
}

// An event that was not sampled is not sampled here either, and its receiver learns that.
func TestUnsampledEventHasNoSpan(t *testing.T) {
	t.Parallel()
	url, got := receiver(t, ok)
	s, spans := traced(t)
	s.Send(t.Context(), []*delivery.Delivery{inTrace("00")}, settings(url))
	require.Empty(t, spans.GetSpans())
	require.Regexp(t, "^00-"+traceID+"-[0-9a-f]{16}-00$", (<-got).header.Get("Traceparent"))
}

// Without a trace context that can be read the attempt begins a trace, and nothing of another one stays in its header.
func TestAttemptWithoutContextBeginsATrace(t *testing.T) {
	t.Parallel()
	url, got := receiver(t, ok)
	s, spans := traced(t)
	set := settings(url)
	set.Headers = []delivery.Header{{Name: "traceparent", Value: "00-own-own-01"}, {Name: "tracestate", Value: "own=1"}}
	for _, headers := range []string{"", "{}", `{"traceparent":"00-own-own-01","tracestate":"a=1"}`} {
		d := newDelivery("{}")
		d.Event.Headers = []byte(headers)
		s.Send(t.Context(), []*delivery.Delivery{d}, set)
		span, r := only(t, spans), <-got
		require.False(t, span.Parent.IsValid(), headers)
		require.Equal(t, "00-"+span.SpanContext.TraceID().String()+"-"+span.SpanContext.SpanID().String()+"-01", r.header.Get("Traceparent"))
		require.Empty(t, r.header["Tracestate"])
	}
}

// Several events in one request are of several traces: the span points at them and belongs to none.
func TestBatchLinksTheTracesOfItsEvents(t *testing.T) {
	t.Parallel()
	url, got := receiver(t, ok)
	s, spans := traced(t)
	set := settings(url)
	set.BatchSize = 3
	first, second, third := inTrace("01"), inTrace("01"), newDelivery("{}")
	first.ID, second.ID, third.ID = uuid.New(), uuid.New(), uuid.New()
	now := time.Now()
	first.Event.CommittedAt, second.Event.CommittedAt, third.Event.CommittedAt = now, now.Add(-time.Hour), now
	s.Send(t.Context(), []*delivery.Delivery{first, second, third}, set)
	r, span := <-got, only(t, spans)
	require.False(t, span.Parent.IsValid())
	require.Equal(t, "00-"+span.SpanContext.TraceID().String()+"-"+span.SpanContext.SpanID().String()+"-01", r.header.Get("Traceparent"))
	require.Len(t, span.Links, 2)
	for i, d := range []*delivery.Delivery{first, second} {
		require.Equal(t, traceID, span.Links[i].SpanContext.TraceID().String())
		require.Equal(t, spanID, span.Links[i].SpanContext.SpanID().String())
		require.Equal(t, d.ID.String(), span.Links[i].Attributes[0].Value.AsString())
	}
	all := of(span)
	require.EqualValues(t, 3, all["messaging.batch.message_count"])
	require.Equal(t, r.header.Get("X-Webhook-Id"), all["messaging.message.id"])
	require.NotContains(t, all, attribute.Key("walhook.event_id"))
	require.GreaterOrEqual(t, all["walhook.commit_to_attempt_ms"], time.Hour.Milliseconds())
}
