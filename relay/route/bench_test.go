package route_test

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/route"
)

const benchMatches = 10

// benchShapes say what tells the subscriptions apart. make returns the rule of subscription n, the
// member-th of the group that matches the same events; event returns one that exactly a group's rules match.
var benchShapes = []struct {
	name  string
	make  func(n, group, member int) delivery.Rule
	event func(group int) *delivery.Event
}{
	{"type", func(n, group, member int) delivery.Rule {
		return rule(n, `{}`, fmt.Sprintf("patient.t%d", group))
	}, func(group int) *delivery.Event { return event(fmt.Sprintf("patient.t%d", group), benchPayload(0)) }},
	{"prefix", func(n, group, member int) delivery.Rule {
		return rule(n, `{"amount_min": 1000}`, fmt.Sprintf("t%d.*", group))
	}, func(group int) *delivery.Event { return event(fmt.Sprintf("t%d.created", group), benchPayload(0)) }},
	{"tenant", func(n, group, member int) delivery.Rule {
		r := rule(n, `{"department": ["cardiology", "oncology"]}`)
		r.Tenant = fmt.Sprint("tenant", group)
		return r
	}, func(group int) *delivery.Event {
		e := event("patient.created", benchPayload(0))
		e.Tenant = fmt.Sprint("tenant", group)
		return e
	}},
	{"filter", func(n, group, member int) delivery.Rule {
		return rule(n, fmt.Sprintf(`{"department": "cardiology", "account_id": %d, "amount_min": %d}`, group, 1000+member), "patient.created")
	}, func(group int) *delivery.Event { return event("patient.created", benchPayload(group)) }},
}

func benchPayload(account int) string {
	return fmt.Sprintf(`{"id": 12345, "name": "Ann Example", "department": "cardiology", "patient_type": "new", "amount": 1500.50,
		"account_id": %d, "patient": {"age": 42, "address": {"city": "Basel"}}, "items": [{"sku": "a-1"}, {"sku": "b-2"}], "paid": true}`, account)
}

// BenchmarkMatch compares few subscriptions with many while each event matches ten either way.
func BenchmarkMatch(b *testing.B) {
	for _, shape := range benchShapes {
		for _, size := range []int{100, 100_000} {
			b.Run(fmt.Sprintf("%s/%d", shape.name, size), func(b *testing.B) {
				rules := make([]delivery.Rule, size)
				for n := range rules {
					groups := size / benchMatches
					rules[n] = shape.make(n, n%groups, n/groups)
				}
				before := heap()
				table := route.New()
				for _, r := range rules {
					require.NoError(b, table.Put(r))
				}
				grown := heap() - before
				runtime.KeepAlive(rules)
				benchMatch(b, table, shape.event, benchMatches)
				b.ReportMetric(float64(grown)/float64(size), "B/subscription")
			})
		}
	}
}

// BenchmarkMatchNothing is an event that a hundred thousand subscriptions of its type do not want.
func BenchmarkMatchNothing(b *testing.B) {
	table := route.New()
	for n := range 100_000 {
		require.NoError(b, table.Put(rule(n, fmt.Sprintf(`{"account_id": %d}`, n+1000), "patient.created")))
	}
	benchMatch(b, table, func(group int) *delivery.Event { return event("patient.created", benchPayload(group)) }, 0)
}

// benchMatch matches the events of ten groups in turn.
func benchMatch(b *testing.B, table *route.Table, event func(group int) *delivery.Event, matches int) {
	events := make([]*delivery.Event, 10)
	for group := range events {
		events[group] = event(group)
	}
	dst := make([]uuid.UUID, 0, 100)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if got := table.Match(dst, events[n%len(events)]); len(got) != matches {
			b.Fatalf("%d subscriptions match, not %d", len(got), matches)
		}
		n++
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/event")
}

func BenchmarkPutDelete(b *testing.B) {
	table := route.New()
	rules := make([]delivery.Rule, 100_000)
	for n := range rules {
		rules[n] = rule(n, fmt.Sprintf(`{"department": "cardiology", "account_id": %d}`, n), "patient.created", "visit.*")
		require.NoError(b, table.Put(rules[n]))
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		table.Delete(rules[n%len(rules)].SubscriptionID)
		if err := table.Put(rules[n%len(rules)]); err != nil {
			b.Fatal(err)
		}
		n += 7919
	}
}

func heap() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}
