package webhook_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/webhook"
)

const benchWorkers = 64

// benchReceiver takes requests and answers 200 without a body.
func benchReceiver(b *testing.B) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(listener) }()
	b.Cleanup(func() { _ = server.Close(); <-done })
	return "http://" + listener.Addr().String() + "/hook"
}

// parallel runs do n times from benchWorkers goroutines and returns how long that took.
func parallel(n int, do func()) time.Duration {
	var left atomic.Int64
	left.Store(int64(n))
	var group sync.WaitGroup
	started := time.Now()
	for range benchWorkers {
		group.Go(func() {
			for left.Add(-1) >= 0 {
				do()
			}
		})
	}
	group.Wait()
	return time.Since(started)
}

// BenchmarkSend compares Send with a plain net/http client that posts the same bytes, unsigned. The third
// benchmark alternates between the two in one run, so that both meet the same machine, and reports how many
// requests Send makes for each of the plain client's.
func BenchmarkSend(b *testing.B) {
	url := benchReceiver(b)
	s, set := newSender(b), settings(url)
	d := newDelivery(`{"blob":"` + strings.Repeat("x", 500) + `"}`)
	batch := []*delivery.Delivery{d}
	viaSender := func() {
		if out := s.Send(b.Context(), batch, set); !out.Succeeded() && !b.Failed() {
			b.Error(out.Error)
		}
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 256, MaxIdleConns: 2048, IdleConnTimeout: 90 * time.Second}
	b.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport}
	body := webhook.AppendEnvelope(nil, d, 1)
	raw := func() {
		resp, err := client.Post(url, "application/json", bytes.NewReader(body))
		if err != nil {
			b.Error(err)
			return
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}

	b.Run("raw", func(b *testing.B) { b.ReportAllocs(); parallel(b.N, raw) })
	b.Run("sender", func(b *testing.B) { b.ReportAllocs(); parallel(b.N, viaSender) })
	b.Run("ratio", func(b *testing.B) {
		const slice = 500
		parallel(2*benchWorkers, raw)
		parallel(2*benchWorkers, viaSender)
		b.ResetTimer()
		var plain, ours time.Duration
		for done := 0; done < b.N; done += slice {
			plain += parallel(slice, raw)
			ours += parallel(slice, viaSender)
		}
		b.ReportMetric(float64(plain)/float64(ours), "ratio")
	})
}
