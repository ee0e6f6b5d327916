package relay_test

import (
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay"
	"github.com/walhook/walhook/test/harness"
)

// counter is a receiver that answers 200 and counts: what is measured is the relay.
type counter struct {
	url  string
	got  atomic.Int64
	want atomic.Int64
	done chan struct{}
}

// newCounter starts a receiver that ends with the benchmark.
func newCounter(b *testing.B) *counter {
	c := &counter{done: make(chan struct{}, 1)}
	c.url = serve(b, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if c.got.Add(1) == c.want.Load() {
			c.done <- struct{}{}
		}
	})
	return c
}

// expect sets the counter back; done tells when so many requests have come.
func (c *counter) expect(n int) {
	c.got.Store(0)
	c.want.Store(int64(n))
}

// serve answers on a loopback port until the benchmark ends.
func serve(b *testing.B, handle http.HandlerFunc) (url string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	server, served := &http.Server{Handler: handle}, make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(l) // ends with http.ErrServerClosed
	}()
	b.Cleanup(func() {
		_ = server.Close()
		<-served
	})
	return "http://" + l.Addr().String()
}

// database makes one with the schema and a slot, and subscriptions as the query inserts them.
func database(b *testing.B, subscriptions string, args ...any) (relay.Options, *pgxpool.Pool) {
	o := options(harness.Database(b))
	db := harness.Connect(b, o.URL)
	exec(b, db, subscriptions, args...)
	exec(b, db, "ANALYZE outbox.subscriptions") // as autovacuum would have done by the time it matters
	_, err := relay.Setup(b.Context(), o.URL, o.Slot)
	require.NoError(b, err)
	return o, db
}

// relayProcess starts walhook run as a user would, with nothing configured but where the database is. Relays are
// processes of their own, so that the garbage of one is not another's pause.
func relayProcess(b *testing.B, o relay.Options) *harness.Process {
	return harness.StartProcess(b, harness.BuildWalhook(b), nil, "run", "--database-url", o.URL, "--slot", o.Slot,
		"--listen", "127.0.0.1:0", "--delivery-allow-loopback", "always", "--log-level", "info")
}

// stop ends a process gracefully.
func stop(b *testing.B, p *harness.Process) {
	p.Signal(syscall.SIGTERM)
	require.Zero(b, p.Wait(soon))
}

// memory reads a figure of a process from /proc (proc_pid_status(5)), in MB: VmRSS is what it has, VmHWM the most that
// it had. It is 0 where there is no /proc.
func memory(b *testing.B, p *harness.Process, name string) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return 0
	}
	_, rest, found := strings.Cut(string(text), name+":")
	require.True(b, found, "%s in %s", name, text)
	var kB float64
	_, err = fmt.Sscanf(rest, "%f kB", &kB)
	require.NoError(b, err)
	return kB * 1024 / 1e6
}

// median is the middle of some figures, and how far apart the middle half of them lies as a part of it.
func median(figures []float64) (middle, spread float64) {
	sorted := slices.Sorted(slices.Values(figures))
	at := func(q float64) float64 {
		i, part := math.Modf(q * float64(len(sorted)-1))
		return sorted[int(i)] + part*(sorted[min(int(i)+1, len(sorted)-1)]-sorted[int(i)])
	}
	return at(0.5), (at(0.75) - at(0.25)) / at(0.5)
}
