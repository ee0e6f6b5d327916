package relay_test

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/http"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// place is where an event stands: its number counts the events in commit order.
type place struct {
	Key    string `json:"key"`
	Number int    `json:"number"`
}

// places reads what a request carries, one event or a batch of them.
func places(t *testing.T, r harness.Request) []place {
	t.Helper()
	var all []place
	var one struct {
		EventData place `json:"event_data"`
	}
	if r.Header.Get("X-Webhook-Batch") == "" {
		require.NoError(t, json.Unmarshal(r.Body, &one), "%.300s", r.Body)
		return []place{one.EventData}
	}
	var several []struct {
		EventData place `json:"event_data"`
	}
	require.NoError(t, json.Unmarshal(r.Body, &several), "%.300s", r.Body)
	for _, e := range several {
		all = append(all, e.EventData)
	}
	return all
}

// requireOrder checks the rule of a sequence: nothing arrives for the first time while something before it was not
// taken yet. What was taken may come again.
func requireOrder(t *testing.T, requests []harness.Request, taken func(harness.Request) bool, sequence func(place) string) {
	t.Helper()
	done, begun := map[place]bool{}, map[string][]place{}
	for _, r := range requests {
		request := map[place]bool{} // what stands before it in the same request goes with it
		for _, p := range places(t, r) {
			s := sequence(p)
			if !slices.Contains(begun[s], p) {
				for _, earlier := range begun[s] {
					require.Less(t, earlier.Number, p.Number, "%v came first", earlier)
					require.True(t, done[earlier] || request[earlier], "%v came before %v was taken", p, earlier)
				}
				begun[s] = append(begun[s], p)
			}
			request[p] = true
		}
		for p := range request {
			done[p] = done[p] || taken(r)
		}
	}
}

// moody fails an attempt of a request now and then, and always in the same way.
type moody struct{}

func (moody) answer(r harness.Request) harness.Response {
	h := fnv.New32()
	_, _ = h.Write([]byte(r.ID()))
	attempt, _ := strconv.Atoi(r.Header.Get("X-Webhook-Attempt"))
	if int(h.Sum32()%7) >= attempt && h.Sum32()%7 < 3 {
		return harness.Response{Status: http.StatusInternalServerError}
	}
	return harness.Response{}
}

func (m moody) taken(r harness.Request) bool { s := m.answer(r).Status; return s == 0 || s < 300 }

// arrived are the events that the receiver took.
func arrived(t *testing.T, r *harness.Collector, m moody) map[place]bool {
	t.Helper()
	all := map[place]bool{}
	for _, q := range r.Requests() {
		for _, p := range places(t, q) {
			if m.taken(q) {
				all[p] = true
			}
		}
	}
	return all
}

// Order holds through failures, spilled deliveries and restarts, and what fails holds up no other key.
func TestOrder(t *testing.T) {
	t.Parallel()
	const events, keys = 400, 5
	for name, c := range map[string]struct {
		ordering, batch string
		sequence        func(place) string
	}{
		"key":            {"key", "1", func(p place) string { return p.Key }},
		"strict":         {"strict", "1", func(place) string { return "" }},
		"key batches":    {"key", "7", func(p place) string { return p.Key }},
		"strict batches": {"strict", "7", func(place) string { return "" }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := harness.Database(t)
			db := harness.Connect(t, url)
			o := options(url)
			o.SpillAfter, o.GracePeriod, o.LeaseMargin = 20*time.Millisecond, 0, time.Second
			var m moody
			r := harness.NewCollector(t)
			r.Answer(m.answer)
			running := start(t, o)
			subscribe(t, db, r.URL(), "ordering", "'"+c.ordering+"'", "batch_size", c.batch, "retry_delay", "'50 ms'", "max_retries", "10", "timeout", "'5 s'")
			for i := range 4 {
				exec(t, db, `DO $$ BEGIN FOR i IN 1..100 LOOP
					PERFORM outbox.publish('x', jsonb_build_object('key', 'k' || i % `+fmt.Sprint(keys)+`, 'number', i + `+fmt.Sprint(100*i)+`), key => 'k' || i % `+fmt.Sprint(keys)+`);
					IF i % 10 = 0 THEN COMMIT; END IF;
				END LOOP; END $$`)
				harness.Eventually(t, soon, "the relay is in the midst of it", func() bool { return len(arrived(t, r, m)) > 100*i+20 })
				running.stop(t)
				running = launch(t, o)
			}
			settled(t, db)
			require.Len(t, arrived(t, r, m), events)
			requireOrder(t, r.Requests(), m.taken, c.sequence)
		})
	}
}
