package acceptance_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

// trace publishes one event that is part of a trace and returns the request that it became.
func (db *database) trace(receiver *harness.Collector) harness.Request {
	db.t.Helper()
	n := receiver.Count()
	db.do(`INSERT INTO outbox.events (type, headers) VALUES ('a.b', jsonb_build_object('traceparent', $1::text, 'tracestate', 'a=1'))`, traceparent)
	return receiver.Wait(n+1, soon)[n]
}

// Without OTEL_… the event's own trace context arrives, byte for byte.
func TestTracingIsOffUnlessAskedFor(t *testing.T) {
	db := newDatabase(t)
	receiver, collector := harness.NewCollector(t), harness.NewCollector(t)
	db.subscribe(receiver.URL())
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL())
	t.Setenv("OTEL_SDK_DISABLED", "true")
	r := db.start()
	got := db.trace(receiver)
	require.Equal(t, traceparent, got.Header.Get("Traceparent"))
	require.Equal(t, "a=1", got.Header.Get("Tracestate"))
	r.terminate(soon)
	require.Zero(t, collector.Count())
}

// With them the request names a span of the same trace, which is sent to the collector before the process ends. The
// collector is on this machine and on a port of its own choosing: where webhooks may go is none of its business.
func TestTracesGoToTheCollector(t *testing.T) {
	db := newDatabase(t)
	receiver, collector := harness.NewCollector(t), harness.NewCollector(t)
	db.subscribe(receiver.URL())
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL())
	r := db.start("--delivery-allow-ports", receiver.URL()[strings.LastIndex(receiver.URL(), ":")+1:])
	got := db.trace(receiver).Header.Get("Traceparent")
	require.Regexp(t, `^00-4bf92f3577b34da6a3ce929d0e0e4736-[0-9a-f]{16}-01$`, got)
	require.NotEqual(t, traceparent, got)
	db.settled(soon)
	r.terminate(soon)
	sent := collector.Requests()
	require.NotEmpty(t, sent)
	require.Equal(t, []string{http.MethodPost, "/v1/traces"}, []string{sent[0].Method, sent[0].Path})
	require.Contains(t, string(sent[0].Body), "send webhook")
	require.Contains(t, string(sent[0].Body), "service.name")
}

// A collector that does not answer holds nothing back: neither deliveries nor the end. The log says so, once.
func TestDeadCollectorHoldsNothingBack(t *testing.T) {
	db := newDatabase(t)
	receiver, collector := harness.NewCollector(t), harness.NewCollector(t)
	never := make(chan struct{})
	collector.Answer(func(harness.Request) harness.Response { return harness.Response{Delay: never} })
	id := db.subscribe(receiver.URL(), "payload_format", "'raw'")
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL())
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
	t.Setenv("OTEL_BSP_MAX_QUEUE_SIZE", "16")
	t.Setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
	r := db.start()
	db.publish(500)
	receiver.Wait(500, soon)
	collector.Wait(1, soon)
	db.settled(soon)
	asked := time.Now()
	r.terminate(soon)
	require.Less(t, time.Since(asked), 15*time.Second)
	require.LessOrEqual(t, strings.Count(r.Stderr(), "spans cannot be exported"), 1)
	require.Contains(t, r.Stderr(), "the last spans could not be sent")
	require.Zero(t, db.verify(id, receiver))
}
