package relay_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/walhook/walhook/test/harness"
)

// isolationRate is how many events a second each of the quiet receivers gets.
const isolationRate = 50

// isolationRound is how long events are published with all healthy, or with some that hang. In 5 s all comes that does
// so to them: timeouts, retries and an open circuit.
func isolationRound() time.Duration {
	if testing.Short() {
		return 2 * time.Second
	}
	return 5 * time.Second
}

// quiet is a receiver whose latencies count.
type quiet struct {
	mu   sync.Mutex
	took []time.Duration
}

// ServeHTTP takes an event whose payload is the time of its INSERT.
func (q *quiet) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	sent, err := strconv.ParseInt(string(bytes.TrimSpace(body)), 10, 64)
	took := time.Duration(time.Now().UnixNano() - sent)
	if err != nil {
		took = time.Hour // no figure would hide it
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.took = append(q.took, took)
}

// take returns what came since the last call.
func (q *quiet) take() []time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	all := q.took
	q.took = nil
	return all
}

// noisy is a receiver that can hang: it then answers no request until the client gives up or it wakes.
type noisy struct {
	mu    sync.Mutex
	awake chan struct{} // closed while it does not hang
}

func newNoisy() *noisy {
	n := &noisy{awake: make(chan struct{})}
	close(n.awake)
	return n
}

func (n *noisy) hang() { n.set(make(chan struct{})) }

func (n *noisy) wake() {
	n.mu.Lock()
	defer n.mu.Unlock()
	select {
	case <-n.awake:
	default:
		close(n.awake)
	}
}

func (n *noisy) set(awake chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.awake = awake
}

// ServeHTTP answers when it is awake.
func (n *noisy) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body) // the server notices that the client has gone only behind the body
	n.mu.Lock()
	awake := n.awake
	n.mu.Unlock()
	select {
	case <-awake:
	case <-r.Context().Done():
		panic(http.ErrAbortHandler)
	}
}

// BenchmarkIsolation is what a receiver that hangs for the whole of its timeout does to the others: the time from the
// INSERT of an event to its receipt by nine receivers that get 50 events a second each, while a tenth is healthy and
// while it hangs, in turn. An iteration is one round of each. In "among-100000" there are as many other subscriptions, in
// "tenant" those that hang are 200 subscriptions of another tenant with an event a second each.
func BenchmarkIsolation(b *testing.B) {
	const tenth = `INSERT INTO outbox.subscriptions (name, url, event_types, payload_format, timeout, retry_delay)
		VALUES ('tenth', $1, '{noisy.0}', 'raw', '2 s', '1 s')`
	const tenant = `INSERT INTO outbox.subscriptions (name, url, event_types, payload_format, timeout, retry_delay, tenant)
		SELECT 'noisy ' || n, $1, ARRAY['noisy.' || n % 20], 'raw', '2 s', '1 s', 'noisy' FROM generate_series(0, 199) AS n`
	b.Run("receiver", func(b *testing.B) { benchIsolation(b, noise{insert: tenth, types: 1, rate: isolationRate}) })
	b.Run("receiver-among-100000", func(b *testing.B) {
		benchIsolation(b, noise{insert: tenth, types: 1, rate: isolationRate, others: many})
	})
	b.Run("tenant", func(b *testing.B) {
		benchIsolation(b, noise{insert: tenant, tenant: "noisy", types: 20, rate: 20})
	})
}

// noise is the subscriptions that may hang.
type noise struct {
	insert, tenant string
	types, rate    int // they get so many events a second, of so many types in turn
	others         int // subscriptions that get nothing
}

// benchIsolation compares rounds.
func benchIsolation(b *testing.B, n noise) {
	hanging := newNoisy()
	o, db := database(b, n.insert, serve(b, hanging.ServeHTTP))
	exec(b, db, insertMany, n.others, "http://127.0.0.1:9")
	r := isolationRounds{db: db, noise: n}
	for i := range 9 {
		q := &quiet{}
		r.quiet = append(r.quiet, q)
		exec(b, db, `INSERT INTO outbox.subscriptions (name, url, event_types, payload_format) VALUES ('quiet', $1, ARRAY[$2], 'raw')`,
			serve(b, q.ServeHTTP), fmt.Sprintf("quiet.%d", i))
	}
	relayProcess(b, o)
	recorded(b, db)
	b.Cleanup(hanging.wake)
	var p50, p99 [2][]float64
	var ratios []float64
	r.round(b, time.Second) // opens connections
	for b.Loop() {
		for i := range 2 {
			if i == 1 {
				hanging.hang()
			}
			took := r.round(b, isolationRound())
			hanging.wake()
			r.settle(b)
			p50[i], p99[i] = append(p50[i], quantile(took, 0.5)), append(p99[i], quantile(took, 0.99))
		}
		ratios = append(ratios, p99[1][len(p99[1])-1]/p99[0][len(p99[0])-1])
	}
	report(b, p50[0], "ms-p50-healthy")
	report(b, p50[1], "ms-p50-hanging")
	report(b, p99[0], "ms-p99-healthy")
	report(b, p99[1], "ms-p99-hanging")
	ratio, spread := median(ratios)
	b.ReportMetric(ratio, "p99-ratio")
	b.ReportMetric(100*spread, "spread-%")
	b.ReportMetric(0, "ns/op")
}

// isolationRounds is what stays the same between rounds.
type isolationRounds struct {
	db    *pgxpool.Pool
	quiet []*quiet
	noise
}

// round publishes for so long and returns how long the quiet receivers' events took.
func (r *isolationRounds) round(b *testing.B, lasting time.Duration) []time.Duration {
	var g errgroup.Group
	start := time.Now().Add(50 * time.Millisecond)
	steadily := func(rate int, kind func(i int) (name, tenant string)) {
		n, interval := int(lasting.Seconds()*float64(rate)), time.Second/time.Duration(rate)
		const connections = 2
		for first := range connections {
			g.Go(func() error {
				return r.publish(b.Context(), func(publish func(at time.Time, name, tenant string) error) error {
					for i := first; i < n; i += connections {
						name, tenant := kind(i)
						if err := publish(start.Add(time.Duration(i)*interval), name, tenant); err != nil {
							return err
						}
					}
					return nil
				})
			})
		}
	}
	steadily(len(r.quiet)*isolationRate, func(i int) (string, string) { return fmt.Sprintf("quiet.%d", i%len(r.quiet)), "" })
	steadily(r.rate, func(i int) (string, string) { return fmt.Sprintf("noisy.%d", i%r.types), r.tenant })
	require.NoError(b, g.Wait())
	want := int(lasting.Seconds() * float64(len(r.quiet)*isolationRate))
	var took []time.Duration
	harness.Eventually(b, soon, "the quiet receivers have all", func() bool {
		for _, q := range r.quiet {
			took = append(took, q.take()...)
		}
		return len(took) >= want
	})
	return took
}

// publish calls f with a function that publishes an event at its time, over one connection.
func (r *isolationRounds) publish(ctx context.Context, f func(func(at time.Time, name, tenant string) error) error) error {
	return r.db.AcquireFunc(ctx, func(conn *pgxpool.Conn) error {
		return f(func(at time.Time, name, tenant string) error {
			time.Sleep(time.Until(at))
			_, err := conn.Exec(ctx, "INSERT INTO outbox.events (type, tenant, payload) VALUES ($1, $2, to_jsonb($3::bigint))",
				name, tenant, time.Now().UnixNano())
			return err
		})
	})
}

// settle waits until everything has been delivered, so that the next round begins as this one did.
func (r *isolationRounds) settle(b *testing.B) {
	recorded(b, r.db)
	harness.Eventually(b, 4*soon, "the queue is empty", func() bool {
		return value[int](b, r.db, "SELECT count(*) FROM outbox.deliveries") == 0
	})
}

// quantile is in milliseconds.
func quantile(took []time.Duration, q float64) float64 {
	slices.Sort(took)
	return float64(took[int(q*float64(len(took)-1))].Microseconds()) / 1000
}
