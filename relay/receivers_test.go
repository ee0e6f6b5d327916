package relay_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// answer is a response of nothing but a status.
func answer(status int) harness.Response { return harness.Response{Status: status} }

// always answers every request alike.
func always(r harness.Response) func(harness.Request) harness.Response {
	return func(harness.Request) harness.Response { return r }
}

// sameDelivery requires that all requests are attempts of one delivery: the same id, and a body that differs
// in the attempt's number only.
func sameDelivery(t *testing.T, requests []harness.Request) {
	t.Helper()
	first := read(t, requests[0])
	for i, r := range requests {
		e := read(t, r)
		require.Equal(t, requests[0].ID(), r.ID())
		require.Equal(t, fmt.Sprint(e.Attempt), r.Header.Get("X-Webhook-Attempt"), "attempt of request %d", i)
		e.Attempt = first.Attempt
		require.Equal(t, first, e)
	}
}

// TestReceivers has what receivers do to one delivery, and what the relay makes of it: the attempts that
// arrive and the statuses that the calls log has of them (0: no answer).
func TestReceivers(t *testing.T) {
	retryAfter := func(status int, seconds string) harness.Response {
		return harness.Response{Status: status, Header: http.Header{"Retry-After": {seconds}}}
	}
	cases := []struct {
		name     string
		settings []string
		script   []harness.Response
		statuses []int
		waits    []time.Duration // at least, before each retry
		errors   string          // in the log's first row
		dead     bool
	}{
		{name: "200", script: []harness.Response{answer(200)}, statuses: []int{200}},
		{name: "204", script: []harness.Response{answer(204)}, statuses: []int{204}},
		{name: "500 twice, the delay doubles", settings: []string{"retry_delay", "'200 ms'"},
			script: []harness.Response{answer(500), answer(500), answer(200)}, statuses: []int{500, 500, 200},
			waits: []time.Duration{200 * time.Millisecond, 400 * time.Millisecond}, errors: "HTTP 500"},
		{name: "500 for ever", settings: []string{"retry_delay", "'1 ms'", "max_retries", "2"},
			script: []harness.Response{answer(500), answer(502), answer(400), answer(200)}, statuses: []int{500, 502, 400}, dead: true},
		{name: "no retries", settings: []string{"max_retries", "0"}, script: []harness.Response{answer(500), answer(200)}, statuses: []int{500}, dead: true},
		{name: "429 with Retry-After", settings: []string{"retry_delay", "'1 ms'"},
			script: []harness.Response{retryAfter(429, "2"), answer(200)}, statuses: []int{429, 200}, waits: []time.Duration{2 * time.Second}},
		{name: "503 with Retry-After", settings: []string{"retry_delay", "'1 ms'"},
			script: []harness.Response{retryAfter(503, "1"), answer(200)}, statuses: []int{503, 200}, waits: []time.Duration{time.Second}},
		{name: "Retry-After that is shorter than the schedule", settings: []string{"retry_delay", "'1500 ms'"},
			script: []harness.Response{retryAfter(429, "1"), answer(200)}, statuses: []int{429, 200}, waits: []time.Duration{1500 * time.Millisecond}},
		{name: "reset after processing", settings: []string{"retry_delay", "'1 ms'"},
			script: []harness.Response{{Reset: true}, answer(200)}, statuses: []int{0, 200}, errors: "reset by peer"},
		{name: "no answer in time", settings: []string{"retry_delay", "'1 ms'", "timeout", "'300 ms'"},
			script: []harness.Response{{Delay: make(chan struct{})}, answer(200)}, statuses: []int{0, 200}, errors: "no answer within"},
		{name: "an endless body", settings: []string{"timeout", "'20 s'"}, script: []harness.Response{{Endless: true, Body: []byte("∞ ")}}, statuses: []int{200}},
		{name: "an endless body of an error", settings: []string{"retry_delay", "'1 ms'"},
			script: []harness.Response{{Status: 500, Endless: true}, answer(200)}, statuses: []int{500, 200}},
		{name: "a body that Postgres cannot store", script: []harness.Response{{Body: []byte("a\x00b\xffc")}}, statuses: []int{200}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			url := harness.Database(t)
			db := harness.Connect(t, url)
			r := harness.NewCollector(t)
			r.Script(c.script...)
			id := subscribe(t, db, r.URL(), c.settings...)
			start(t, options(url))
			exec(t, db, `SELECT outbox.publish('a.b', '{"n": 1.10}')`)

			got := r.Wait(len(c.statuses), soon)
			settled(t, db)
			require.Len(t, r.Requests(), len(c.statuses))
			sameDelivery(t, got)
			for i, least := range c.waits {
				waited := got[i+1].At.Sub(got[i].At)
				require.GreaterOrEqual(t, waited, least, "before retry %d", i+1)
				require.Less(t, waited, least+least/10+3*time.Second, "before retry %d", i+1)
			}
			logged := calls(t, db, id)
			require.Equal(t, c.statuses, statuses(logged))
			if c.errors != "" {
				require.NotNil(t, logged[0].Error)
				require.Contains(t, *logged[0].Error, c.errors)
			}
			if body := logged[0].Body; body != nil {
				require.LessOrEqual(t, len(*body), 10<<10)
			}
			require.Equal(t, c.dead, value[bool](t, db, "SELECT EXISTS (SELECT FROM outbox.dead_letters WHERE subscription_id = $1 AND attempts = $2)", id, len(c.statuses)))
		})
	}
}

func TestRefusedConnectionsAreRetriedUntilSomebodyListens(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	address := refusing(t)
	id := subscribe(t, db, "http://"+address, "retry_delay", "'100 ms'", "max_retries", "10")
	start(t, options(url))
	exec(t, db, "SELECT outbox.publish('a', '{}')")
	harness.Eventually(t, soon, "two attempts are in the log", func() bool {
		return value[int](t, db, "SELECT count(*) FROM outbox.calls WHERE error LIKE '%refused%' AND status IS NULL") >= 2
	})
	r := harness.NewCollector(t, harness.ListenOn(address))
	got := r.Wait(1, soon)
	settled(t, db)
	require.Len(t, r.Requests(), 1)
	logged := calls(t, db, id)
	require.Equal(t, fmt.Sprint(len(logged)), got[0].Header.Get("X-Webhook-Attempt"))
	for i, c := range logged {
		require.Equal(t, got[0].ID(), c.DeliveryID)
		require.Equal(t, i+1, c.Attempt)
	}
}

// TestSlowReceiver answers long after its delivery became a queue row: the attempt under way counts, is
// recorded once, and nothing is sent again.
func TestSlowReceiver(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	r := harness.NewCollector(t)
	hold := make(chan struct{})
	r.Answer(always(harness.Response{Delay: hold}))
	id := subscribe(t, db, r.URL())
	o := options(url)
	o.SpillAfter = 50 * time.Millisecond
	start(t, o)
	exec(t, db, "SELECT outbox.publish('a', '{}') FROM generate_series(1, 5)")
	r.Wait(5, soon)
	recorded(t, db) // the stream does not wait for them
	require.Equal(t, 5, value[int](t, db, "SELECT count(*) FROM outbox.queue WHERE state = 'in flight' AND attempts = 0"))
	_, err := db.Exec(t.Context(), "SELECT outbox.redeliver($1)", r.Requests()[0].ID())
	require.ErrorContains(t, err, "is being attempted right now")

	close(hold)
	settled(t, db)
	require.Equal(t, []int{200, 200, 200, 200, 200}, statuses(calls(t, db, id)))
	require.Len(t, r.ByID(), 5)
	require.Equal(t, 5, r.Count())
}

// TestSlowReceiverThatFails: once its attempt has ended, its delivery waits like any other.
func TestSlowReceiverThatFails(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	r := harness.NewCollector(t)
	hold := make(chan struct{})
	r.Script(harness.Response{Delay: hold, Status: 500})
	id := subscribe(t, db, r.URL(), "retry_delay", "'1 hour'")
	o := options(url)
	o.SpillAfter = 50 * time.Millisecond
	start(t, o)
	exec(t, db, "SELECT outbox.publish('a', '{}')")
	delivery := r.Wait(1, soon)[0].ID()
	recorded(t, db)
	close(hold)
	harness.Eventually(t, soon, "the delivery waits for its retry", func() bool {
		return value[bool](t, db, `SELECT state = 'waiting' AND attempts = 1 AND last_status = 500
			AND next_attempt_at BETWEEN now() + interval '59 min' AND now() + interval '67 min' FROM outbox.queue`)
	})
	exec(t, db, "SELECT outbox.redeliver($1)", delivery)
	sameDelivery(t, r.Wait(2, soon))
	settled(t, db)
	require.Equal(t, []int{500, 200}, statuses(calls(t, db, id)))
	require.Equal(t, []string{"1", "2"}, attempts(r.Requests()))
}

// TestStopBreaksOffWhatHangs: an attempt that outlasts the grace period did not happen, as far as the schedule
// is concerned.
func TestStopBreaksOffWhatHangs(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	r := harness.NewCollector(t)
	r.Answer(always(harness.Response{Delay: make(chan struct{})}))
	id := subscribe(t, db, r.URL(), "max_in_flight", "3")
	o := options(url)
	o.GracePeriod = 200 * time.Millisecond
	first := start(t, o)
	exec(t, db, "SELECT outbox.publish('a', '{}') FROM generate_series(1, 10)")
	r.Wait(3, soon)
	began := time.Now()
	first.stop(t)
	require.Less(t, time.Since(began), 10*time.Second)
	require.Equal(t, 10, value[int](t, db, "SELECT count(*) FROM outbox.queue WHERE state = 'waiting' AND attempts = 0 AND next_attempt_at <= now()"))
	require.Empty(t, calls(t, db, id))

	r.Answer(nil)
	start(t, o)
	settled(t, db)
	require.Equal(t, 13, r.Count(), "the three that were broken off came again")
	require.Len(t, r.ByID(), 10)
	for _, number := range attempts(r.Requests()) {
		require.Equal(t, "1", number)
	}
}

func TestDeadLetterIsRedelivered(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	r := harness.NewCollector(t)
	r.Answer(always(answer(500)))
	id := subscribe(t, db, r.URL(), "max_retries", "1", "retry_delay", "'1 ms'")
	start(t, options(url))
	exec(t, db, `SELECT outbox.publish('a', '{"n": 7}')`)
	delivery := r.Wait(2, soon)[0].ID()
	dead := func(attempts int) {
		t.Helper()
		settled(t, db)
		require.Equal(t, delivery, value[string](t, db, "SELECT id::text FROM outbox.dead_letters WHERE subscription_id = $1 AND attempts = $2 AND last_status = 500", id, attempts))
	}
	dead(2)

	// Retries begin anew, attempts go on counting.
	exec(t, db, "SELECT outbox.redeliver($1)", delivery)
	r.Wait(4, soon)
	dead(4)

	r.Answer(nil)
	exec(t, db, "SELECT outbox.redeliver($1)", delivery)
	r.Wait(5, soon)
	settled(t, db)
	require.Zero(t, value[int](t, db, "SELECT count(*) FROM outbox.dead_letters"))

	// What succeeded can be sent again as well.
	exec(t, db, "SELECT outbox.redeliver($1)", delivery)
	sameDelivery(t, r.Wait(6, soon))
	settled(t, db)
	require.Equal(t, []string{"1", "2", "3", "4", "5", "6"}, attempts(r.Requests()))
	require.Equal(t, []int{500, 500, 500, 500, 200, 200}, statuses(calls(t, db, id)))

	_, err := db.Exec(t.Context(), "SELECT outbox.redeliver($1)", uuid.New())
	require.ErrorContains(t, err, "there is no delivery")
}

func TestRedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	r, elsewhere := harness.NewCollector(t), harness.NewCollector(t)
	for _, status := range []int{301, 302, 303, 307, 308} {
		r.Script(harness.Response{Status: status, Header: http.Header{"Location": {elsewhere.URL() + "/stolen"}}})
	}
	id := subscribe(t, db, r.URL(), "max_retries", "0", "max_in_flight", "1")
	start(t, options(url))
	exec(t, db, "SELECT outbox.publish('a', '{}') FROM generate_series(1, 5)")
	r.Wait(5, soon)
	settled(t, db)
	require.Equal(t, []int{301, 302, 303, 307, 308}, statuses(calls(t, db, id)))
	require.Zero(t, elsewhere.Count())
	require.Equal(t, 5, value[int](t, db, "SELECT count(*) FROM outbox.dead_letters WHERE last_error ILIKE '%redirect%'"))
}

// TestDeadReceiversHoldUpNobodyElse has receivers that refuse, hang, fail and crawl beside healthy ones: those
// get everything promptly, and the slot moves on.
func TestDeadReceiversHoldUpNobodyElse(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	hanging, failing, endless := harness.NewCollector(t), harness.NewCollector(t), harness.NewCollector(t)
	hold := make(chan struct{})
	t.Cleanup(func() { close(hold) }) // before the relay stops
	hanging.Answer(always(harness.Response{Delay: hold}))
	failing.Answer(always(answer(500)))
	endless.Answer(always(harness.Response{Endless: true}))
	var dead []uuid.UUID
	for _, address := range []string{"http://" + refusing(t), hanging.URL(), failing.URL()} {
		dead = append(dead, subscribe(t, db, address))
	}
	subscribe(t, db, endless.URL())
	healthy := []*harness.Collector{harness.NewCollector(t), harness.NewCollector(t), harness.NewCollector(t)}
	for _, r := range healthy {
		subscribe(t, db, r.URL())
	}
	o := options(url)
	o.SpillAfter, o.GracePeriod = 200*time.Millisecond, time.Second
	start(t, o)

	const batches, size = 10, 50
	for range batches {
		exec(t, db, "SELECT outbox.publish('a', '{}') FROM generate_series(1, $1::int)", size)
	}
	for _, r := range healthy {
		r.Wait(batches*size, 20*time.Second) // one attempt that hangs lasts 30 s
	}
	recorded(t, db)
	harness.Eventually(t, soon, "the slot moves on", func() bool {
		return value[bool](t, db, "SELECT confirmed_lsn >= checkpoint_lsn AND lag_bytes < 4 << 20 FROM outbox.replication_lag")
	})
	for _, r := range healthy {
		require.Len(t, r.ByID(), batches*size)
		require.Equal(t, batches*size, r.Count(), "each once")
	}
	for _, id := range dead {
		require.Equal(t, batches*size, value[int](t, db, "SELECT pending FROM outbox.subscription_stats WHERE subscription_id = $1", id), "all of them wait")
	}
}
