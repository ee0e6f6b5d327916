package webhook

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/walhook/walhook/relay/delivery"
)

// TraceSchema is the version of OpenTelemetry's semantic conventions that spans follow: for HTTP clients
// (https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-client-span), since an attempt is a request, and for
// who sends messages (https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/). The name of a span is
// what is done and where to, as the latter say, without what has many values.
const TraceSchema = semconv.SchemaURL

const (
	spanName        = "send webhook"
	messagingSystem = "walhook"
)

// What no convention names.
const (
	attributeEventType       = attribute.Key("walhook.event_type")
	attributeEventID         = attribute.Key("walhook.event_id")
	attributeSubscription    = attribute.Key("walhook.subscription_id")
	attributeAttempt         = attribute.Key("walhook.attempt")
	attributeCommitToAttempt = attribute.Key("walhook.commit_to_attempt_ms") // from the oldest event's commit, milliseconds
)

// startSpan begins the span of an attempt and lets the request's header name it, so that what the receiver does becomes
// its child. Of a single event's trace it is a part; with several in one request it is a trace of its own with links to
// theirs.
func (s *Sender) startSpan(ctx context.Context, e *endpoint, m message, batch []*delivery.Delivery, h http.Header) trace.Span {
	options := []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindClient), trace.WithTimestamp(m.at)}
	if m.only != nil {
		ctx = eventContext(ctx, m.only.Event.Headers)
	} else {
		options = append(options, trace.WithLinks(links(batch)...))
	}
	ctx, span := s.tracer.Start(ctx, spanName, options...)
	if span.SpanContext().IsValid() {
		delete(h, "Tracestate") // of another trace
		propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(h))
	}
	if span.IsRecording() {
		span.SetAttributes(s.attributes(e, &m, batch)...)
	}
	return span
}

// attributes describe a request. Nothing in them is a secret: of the URL they have what an Outcome may show, without user
// information and query.
func (s *Sender) attributes(e *endpoint, m *message, batch []*delivery.Delivery) []attribute.KeyValue {
	all := []attribute.KeyValue{
		semconv.HTTPRequestMethodPost,
		semconv.ServerAddress(e.request.URL.Hostname()),
		semconv.ServerPort(portOf(e.request.URL)),
		semconv.URLFull(e.tell(plainURL(e.request.URL))),
		semconv.MessagingSystemKey.String(messagingSystem),
		semconv.MessagingOperationTypeSend,
		semconv.MessagingOperationName("send"),
		semconv.MessagingMessageID(m.id),
		semconv.MessagingMessageBodySize(len(m.body)),
		attributeSubscription.String(e.from.SubscriptionID.String()),
		attributeEventType.String(m.event),
		attributeAttempt.Int(m.attempt),
	}
	if e.from.Name != "" {
		all = append(all, semconv.MessagingDestinationName(e.from.Name))
	}
	if m.only != nil {
		all = append(all, attributeEventID.String(m.only.Event.ID.String()))
	}
	if m.elements > 0 {
		all = append(all, semconv.MessagingBatchMessageCount(m.elements))
	}
	if committed := firstCommit(batch); !committed.IsZero() {
		all = append(all, attributeCommitToAttempt.Int64(m.at.Sub(committed).Milliseconds()))
	}
	return all
}

// endSpan writes down what came of the attempt. For a status the error's type is its number, as the conventions want it.
func endSpan(span trace.Span, out *delivery.Outcome) {
	if out.Status != 0 {
		span.SetAttributes(semconv.HTTPResponseStatusCode(out.Status))
	}
	if !out.Succeeded() {
		kind := string(out.Reason)
		if out.Status != 0 {
			kind = strconv.Itoa(out.Status)
		}
		span.SetAttributes(semconv.ErrorTypeKey.String(kind))
		span.SetStatus(codes.Error, out.Error)
	}
	span.End()
}

// eventContext is ctx with the event's trace context, if it has one that can be read (W3C Trace Context, section 3).
func eventContext(ctx context.Context, eventHeaders []byte) context.Context {
	parent, state := traceContext(eventHeaders)
	if parent == "" {
		return ctx
	}
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": parent, "tracestate": state})
}

// links point at the traces of the events in one request.
func links(batch []*delivery.Delivery) []trace.Link {
	var all []trace.Link
	for _, d := range batch {
		of := trace.SpanContextFromContext(eventContext(context.Background(), d.Event.Headers))
		if of.IsValid() {
			all = append(all, trace.Link{SpanContext: of, Attributes: []attribute.KeyValue{semconv.MessagingMessageID(idText(d.ID))}})
		}
	}
	return all
}

// firstCommit is when the oldest event of a request was committed.
func firstCommit(batch []*delivery.Delivery) time.Time {
	first := batch[0].Event.CommittedAt
	for _, d := range batch[1:] {
		if at := d.Event.CommittedAt; at.Before(first) {
			first = at
		}
	}
	return first
}

// plainURL is a URL without what may be secret in it.
func plainURL(u *url.URL) string {
	plain := *u
	plain.User, plain.RawQuery, plain.ForceQuery = nil, "", false
	return plain.String()
}

func portOf(u *url.URL) int {
	if port, err := strconv.Atoi(u.Port()); err == nil {
		return port
	}
	if u.Scheme == "http" {
		return 80
	}
	return 443
}
