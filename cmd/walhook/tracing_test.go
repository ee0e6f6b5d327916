package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
)

func TestTracingIsWantedWhenTheEnvironmentSaysSo(t *testing.T) {
	t.Parallel()
	const endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318"
	for _, c := range []struct {
		environ string // separated by spaces
		wanted  bool
		says    string
	}{
		{"", false, ""},
		{"OTEL_SERVICE_NAME=x OTEL_TRACES_SAMPLER=always_on", false, ""},
		{endpoint, true, ""},
		{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=https://collector/v1/traces", true, ""},
		{"OTEL_TRACES_EXPORTER=otlp", true, ""},
		{endpoint + " OTEL_TRACES_EXPORTER=otlp", true, ""},
		{endpoint + " OTEL_TRACES_EXPORTER=none", false, ""},
		{endpoint + " OTEL_TRACES_EXPORTER=", true, ""},
		{endpoint + " OTEL_SDK_DISABLED=True", false, ""},
		{endpoint + " OTEL_SDK_DISABLED=yes", true, ""},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=", false, ""},
		{endpoint + " OTEL_TRACES_EXPORTER=zipkin", false, "OTEL_TRACES_EXPORTER is neither otlp nor none"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=localhost:4318", false, "OTEL_EXPORTER_OTLP_ENDPOINT is no URL"},
		{endpoint + " OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=:::", false, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is no URL"},
		{endpoint + " OTEL_EXPORTER_OTLP_PROTOCOL=grpc", true, "OTEL_EXPORTER_OTLP_PROTOCOL is not http/protobuf"},
		{endpoint + " OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf", true, ""},
	} {
		wanted, says := tracingWanted(strings.Fields(c.environ))
		require.Equal(t, c.wanted, wanted, c.environ)
		if c.says == "" {
			require.Empty(t, says, c.environ)
		}
		require.Contains(t, says, c.says, c.environ)
	}
}

func TestTracingThatNobodyWantsIsNothing(t *testing.T) {
	t.Parallel()
	off := startTracing(t.Context(), nil, zerolog.Nop())
	require.Nil(t, off.tracer, "a nil interface is what costs nothing")
	off.stop()
}

// A collector that is down for an hour is sixty lines.
func TestExportErrorsAreLoggedRarely(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r := &rareErrors{log: zerolog.New(&log), every: time.Minute}
		r.Handle(nil)
		r.Handle(context.Canceled)
		require.Empty(t, log.String())
		for range 60 {
			r.Handle(errors.New("connection refused"))
			time.Sleep(time.Second) // of the bubble's own time
		}
		require.Equal(t, 1, strings.Count(log.String(), "connection refused"))
		r.Handle(errors.New("connection refused"))
		require.Equal(t, 2, strings.Count(log.String(), "connection refused"))
		require.Contains(t, log.String(), `"more_of_them":59`)
	})
}
