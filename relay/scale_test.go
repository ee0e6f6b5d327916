package relay_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/walhook/walhook/relay"
	"github.com/walhook/walhook/test/harness"
)

const (
	few, many = 100, 100_000
	// matching is how many subscriptions get an event, however many there are.
	matching = 10
)

// insertMany inserts $1 subscriptions at $2, in groups of matching which want a type of their own each.
const insertMany = `INSERT INTO outbox.subscriptions (name, url, secret, event_types, filters)
	SELECT 'subscription ' || n, $2::text || '/' || n, 'secret ' || n, ARRAY['patient.t' || n / 10],
		jsonb_build_object('department', 'cardiology', 'amount_min', n % 10)
	FROM generate_series(0, $1::int - 1) AS n`

// publishMany publishes $1 events in one transaction, to the first $2 groups in turn.
const publishMany = `INSERT INTO outbox.events (type, payload)
	SELECT 'patient.t' || n % $2::int, jsonb_build_object('n', n, 'department', 'cardiology', 'amount', 1000, 'note', repeat('x', 300))
	FROM generate_series(0, $1::int - 1) AS n`

// crowd is a relay with many or few subscriptions.
type crowd struct {
	size     int
	options  relay.Options
	db       *pgxpool.Pool
	relay    *harness.Process
	receiver *counter
	took     []float64 // microseconds an event, by round
}

func newCrowd(b *testing.B, size int) *crowd {
	c := &crowd{size: size, receiver: newCounter(b)}
	o, db := database(b, insertMany, size, c.receiver.url)
	c.options, c.db = o, db
	c.relay = relayProcess(b, o)
	return c
}

// deliver publishes events and returns when all their deliveries have been received and recorded.
func (c *crowd) deliver(b *testing.B, events, groups int) time.Duration {
	began := time.Now()
	c.receiver.expect(events * matching)
	exec(b, c.db, publishMany, events, groups)
	<-c.receiver.done
	recorded(b, c.db)
	return time.Since(began)
}

// BenchmarkSubscriptions compares what an event costs where there are 100 subscriptions and where there are 100,000,
// ten of which get it either way: from its commit through stream, route, lanes and receiver until all ten
// deliveries are recorded. Both relays run all the time, and an iteration is a round through the one and the other. In
// "same" all events go to the same ten, in "spread" to all in turn.
func BenchmarkSubscriptions(b *testing.B) {
	const events = 1000
	crowds := []*crowd{newCrowd(b, few), newCrowd(b, many)}
	for _, shape := range []string{"same", "spread"} {
		b.Run(shape, func(b *testing.B) {
			ratios := []float64{}
			for _, c := range crowds {
				c.took = nil
				c.deliver(b, events, 1) // opens connections
			}
			for b.Loop() {
				for _, c := range crowds {
					groups := 1
					if shape == "spread" {
						groups = c.size / matching
					}
					c.took = append(c.took, float64(c.deliver(b, events, groups).Microseconds())/events)
				}
				last := len(crowds[0].took) - 1
				ratios = append(ratios, crowds[1].took[last]/crowds[0].took[last])
			}
			for _, c := range crowds {
				middle, _ := median(c.took)
				b.ReportMetric(middle, fmt.Sprintf("µs/event-of-%d", c.size))
			}
			ratio, spread := median(ratios)
			b.ReportMetric(ratio, "ratio")
			b.ReportMetric(100*spread, "spread-%")
			b.ReportMetric(0, "ns/op") // a round says nothing
		})
	}
}

// BenchmarkStart is the time from the start of walhook run to the first delivery, of an event that waits for it; from
// the death of a relay, whose successor stands by, to the next delivery; and the memory that a relay has by then, with
// few subscriptions and with many.
func BenchmarkStart(b *testing.B) {
	for _, size := range []int{few, many} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			receiver := newCounter(b)
			o, db := database(b, insertMany, size, receiver.url)
			harness.BuildWalhook(b)
			first := func(begin func()) float64 { // seconds to the first delivery
				receiver.expect(matching)
				exec(b, db, publishMany, 1, 1)
				began := time.Now()
				begin()
				<-receiver.done
				return time.Since(began).Seconds()
			}
			var started, takenOver, rss []float64
			for b.Loop() {
				var p *harness.Process
				started = append(started, first(func() { p = relayProcess(b, o) }))
				rss = append(rss, memory(b, p, "VmHWM"))
				recorded(b, db)
				next := relayProcess(b, o)
				next.WaitFor("relay is standby", soon)
				takenOver = append(takenOver, first(p.Kill))
				recorded(b, db)
				stop(b, next)
			}
			report(b, started, "s-start")
			report(b, takenOver, "s-takeover")
			report(b, rss, "MB")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkInsertMany inserts 100,000 subscriptions in one transaction while the relay runs: the time from its commit
// until the relay has delivered an event to ten of them, and until it has recorded all changes.
func BenchmarkInsertMany(b *testing.B) {
	receiver := newCounter(b)
	o, db := database(b, "SELECT")
	var inserted, delivered, done, most []float64
	for b.Loop() {
		exec(b, db, "DELETE FROM outbox.subscriptions")
		p := relayProcess(b, o)
		recorded(b, db)
		began := time.Now()
		exec(b, db, insertMany, many, receiver.url)
		committed := time.Now()
		receiver.expect(matching)
		exec(b, db, publishMany, 1, 1)
		<-receiver.done
		delivered = append(delivered, time.Since(committed).Seconds())
		recorded(b, db)
		inserted, done = append(inserted, committed.Sub(began).Seconds()), append(done, time.Since(committed).Seconds())
		most = append(most, memory(b, p, "VmHWM"))
		stop(b, p)
	}
	report(b, inserted, "s-insert")
	report(b, delivered, "s-to-delivery")
	report(b, done, "s-to-record")
	report(b, most, "MB-peak")
	b.ReportMetric(0, "ns/op")
}

// report tells the middle of some figures.
func report(b *testing.B, figures []float64, unit string) {
	middle, _ := median(figures)
	b.ReportMetric(middle, unit)
}
