package main

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/walhook/walhook/relay/webhook"
)

// flushTimeout is how long a stopping process waits for the collector to take the last spans.
const flushTimeout = 3 * time.Second

// The variables that turn tracing on or off
// (https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/ and
// https://opentelemetry.io/docs/specs/otel/protocol/exporter/). The SDK and the exporter read the others themselves.
const (
	otelDisabled       = "OTEL_SDK_DISABLED"
	otelExporter       = "OTEL_TRACES_EXPORTER"
	otelEndpoint       = "OTEL_EXPORTER_OTLP_ENDPOINT"
	otelTracesEndpoint = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
)

// tracing is where spans go. Its tracer is nil when nobody wants them.
type tracing struct {
	tracer trace.Tracer
	stop   func() // sends what is left, within flushTimeout
}

// startTracing exports spans over OTLP/HTTP if the environment asks for it. Spans wait in a queue of bounded size, which
// drops them when the collector does not keep up: deliveries never wait for it. What is wrong with tracing is said and
// does not keep the relay from running.
func startTracing(ctx context.Context, environ []string, log zerolog.Logger) tracing {
	log = log.With().Str("component", "tracing").Logger()
	off := tracing{stop: func() {}}
	wanted, problem := tracingWanted(environ)
	if problem != "" {
		log.Warn().Msg(problem)
	}
	if !wanted {
		return off
	}
	silence(otel.SetLogger)
	otel.SetErrorHandler(&rareErrors{log: log, every: time.Minute})
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		log.Warn().Err(err).Msg("traces are off")
		return off
	}
	about, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithHost(),
		resource.WithAttributes(attribute.String("service.name", "walhook"), attribute.String("service.version", version)),
		resource.WithFromEnv()) // the last one wins
	if err != nil {
		log.Warn().Err(err).Msg("the traces' resource is incomplete: check OTEL_RESOURCE_ATTRIBUTES")
	}
	provider := sdk.NewTracerProvider(sdk.WithBatcher(exporter), sdk.WithResource(about))
	log.Info().Msg("traces are on")
	return tracing{
		tracer: provider.Tracer("github.com/walhook/walhook/relay/webhook",
			trace.WithInstrumentationVersion(version), trace.WithSchemaURL(webhook.TraceSchema)),
		stop: func() { flush(provider, log) },
	}
}

// flush ends tracing.
func flush(provider *sdk.TracerProvider, log zerolog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	if err := provider.Shutdown(ctx); err != nil {
		log.Warn().Err(err).Msg("the last spans could not be sent")
	}
}

// tracingWanted reads the environment. Naming an endpoint is enough; an exporter that is not there is a mistake that is
// told, without its value's being taken for anything. An empty variable counts as not set.
func tracingWanted(environ []string) (wanted bool, problem string) {
	variables := make(map[string]string, len(environ))
	for _, v := range environ {
		name, value, _ := strings.Cut(v, "=")
		variables[name] = value
	}
	if strings.EqualFold(variables[otelDisabled], "true") {
		return false, ""
	}
	endpoint := otelTracesEndpoint
	if variables[endpoint] == "" {
		endpoint = otelEndpoint
	}
	switch exporter := variables[otelExporter]; {
	case exporter == "none", exporter == "" && variables[endpoint] == "":
		return false, ""
	case exporter != "" && exporter != "otlp":
		return false, "traces are off: " + otelExporter + " is neither otlp nor none"
	case variables[endpoint] != "" && !isHTTP(variables[endpoint]):
		return false, "traces are off: " + endpoint + " is no URL: write it as in http://localhost:4318"
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"} {
		if p := variables[name]; p != "" && p != "http/protobuf" {
			return true, name + " is not http/protobuf, which is what traces are sent with: the endpoint must take it (usually on port 4318)"
		}
	}
	return true, ""
}

func isHTTP(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

// silence gives a function that takes a logger the zero one, which writes nothing: OpenTelemetry's own would write what it
// cannot read of OTEL_EXPORTER_OTLP_HEADERS, which holds credentials, to standard error.
func silence[Logger any](set func(Logger)) {
	var none Logger
	set(none)
}

// rareErrors logs what goes wrong with exporting, at most once in a while: a collector that is down is no news.
type rareErrors struct {
	log   zerolog.Logger
	every time.Duration

	mu     sync.Mutex
	next   time.Time
	silent int // since the last message
}

// Handle is called by the SDK, from any goroutine.
func (r *rareErrors) Handle(err error) {
	if err == nil || errors.Is(err, context.Canceled) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if now.Before(r.next) {
		r.silent++
		return
	}
	r.log.Warn().Err(err).Int("more_of_them", r.silent).Msg("spans cannot be exported and are dropped")
	r.next, r.silent = now.Add(r.every), 0
}
