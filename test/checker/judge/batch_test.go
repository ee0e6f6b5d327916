package judge_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/checker/history"
	"github.com/walhook/walhook/test/checker/judge"
)

func batches(size int) func(*history.Subscription) {
	return func(r *history.Subscription) { r.BatchSize = size }
}

// batch is a request with several deliveries, answered with 200 after 10 ms and well made. Its id is that of its events
// written one behind the other.
func (s *scene) batch(ms, attempt int, to uuid.UUID, events ...int) *history.Receipt {
	var elements []string
	for _, n := range events {
		elements = append(elements, string(s.request(ms, n, attempt, to).Body))
		s.h.Receipts = s.h.Receipts[:len(s.h.Receipts)-1]
	}
	delivery := deliveryID(events[0], to)
	if len(events) > 1 {
		delivery = uuid.NewSHA1(uuid.NameSpaceOID, fmt.Append(nil, to, events))
	}
	s.h.Receipts = append(s.h.Receipts, history.Receipt{Seq: int64(len(s.h.Receipts) + 1), Subscription: to, Delivery: delivery.String(), Batch: fmt.Sprint(len(events)),
		Type: "visit.started", Attempt: attempt, ArrivedAt: at(ms), AnsweredAt: at(ms + 10), Behaviour: "ok", Status: 200})
	r := &s.h.Receipts[len(s.h.Receipts)-1]
	withBody(r, "["+strings.Join(elements, ",")+"]")
	return r
}

// threeEvents of one key are for a subscription with batches.
func threeEvents(change ...func(*history.Subscription)) (s *scene, to uuid.UUID) {
	s = newScene()
	to = s.subscribe(0, 1, append([]func(*history.Subscription){batches(3)}, change...)...)
	for n := 1; n <= 3; n++ {
		s.event(1000+n, n, "k", to)
	}
	return s, to
}

func TestBatchesAreTakenApart(t *testing.T) {
	t.Parallel()
	s, to := threeEvents()
	s.batch(2000, 1, to, 1, 2)
	s.batch(2100, 1, to, 3)
	v := s.clean(t)
	require.Equal(t, []int{3, 1, 2}, []int{v.Delivered, v.Batches, v.Batched})

	s.batch(3000, 1, to, 1, 2)
	v = s.judge()
	require.Equal(t, 2, v.Unexplained, "each delivery of a repeated batch is a duplicate")
}

func TestWhatABatchMustBe(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(r *history.Receipt)
		kind   history.Kind
		text   string
	}{
		"another number":  {func(r *history.Receipt) { r.Batch = "2" }, history.Batch, `X-Webhook-Batch is "2"`},
		"another type":    {func(r *history.Receipt) { r.Type = "batch" }, history.Batch, "X-Webhook-Event"},
		"another attempt": {func(r *history.Receipt) { r.Attempt = 2 }, history.Batch, "X-Webhook-Attempt is 2"},
		"no UUID":         {func(r *history.Receipt) { r.Delivery = "1" }, history.Batch, "no UUID of its own"},
		"a delivery's id": {func(r *history.Receipt) { r.Delivery = deliveryID(1, r.Subscription).String() }, history.Batch, "no UUID of its own"},
		"unsigned":        {func(r *history.Receipt) { r.Signature = nil }, history.Identity, "X-Webhook-Signature is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, to := threeEvents()
			c.change(s.batch(2000, 1, to, 1, 2, 3))
			v := s.judge()
			require.NotEmpty(t, v.Findings)
			require.Len(t, v.Counts, 1)
			require.Positive(t, v.Counts[c.kind], "%v", v.Findings)
			require.Contains(t, v.Findings[0].Detail, c.text)
		})
	}
}

func TestWhatABatchHolds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		size   int
		events []int
		kind   history.Kind // of the finding; empty: clean
		text   string
	}{
		"all":               {3, []int{1, 2, 3}, "", ""},
		"too many":          {2, []int{1, 2, 3}, history.Batch, "batch_size was 2 at most"},
		"another order":     {3, []int{1, 3, 2}, history.Batch, "stands behind"},
		"not asked for":     {1, []int{1}, history.Identity, `X-Webhook-Batch is "1", and batch_size 1`},
		"by itself":         {3, []int{1}, history.Lost, "never arrived"},
		"one of them twice": {3, []int{1, 1}, history.Batch, "is in it twice"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, to := threeEvents(batches(c.size))
			s.batch(2000, 1, to, c.events...)
			v := s.judge()
			if c.kind == "" {
				s.clean(t)
				return
			}
			require.Positive(t, v.Counts[c.kind], "%v", v.Findings)
			require.True(t, slices.ContainsFunc(v.Findings, func(f history.Finding) bool { return strings.Contains(f.Detail, c.text) }), "%v", v.Findings)
		})
	}
}

func TestOneDeliveryOfASubscriptionWithBatchesIsAnArrayToo(t *testing.T) {
	t.Parallel()
	s, to := threeEvents()
	s.batch(2000, 1, to, 1, 2)
	s.request(2100, 3, 1, to)
	s.one(t, history.Identity, `X-Webhook-Batch is "", and batch_size 3`)
}

func TestBodiesThatAreNoBatch(t *testing.T) {
	t.Parallel()
	for body, text := range map[string]string{`{}`: "no JSON array", `[]`: "empty", `[1,`: "no JSON array", `[{"n":1}]`: "not for this"} {
		s, to := threeEvents()
		s.batch(2000, 1, to, 1, 2, 3)
		withBody(s.batch(2100, 1, to, 1), body)
		v := s.judge()
		if text != "not for this" {
			require.Equal(t, 1, v.Phantom, body)
			require.Contains(t, v.Findings[0].Detail, text)
		}
		require.NotEmpty(t, v.Findings, body)
	}
}

func TestTheSameDeliveriesMakeTheSameID(t *testing.T) {
	t.Parallel()
	s, to := threeEvents()
	failed(s.batch(2000, 1, to, 1, 2, 3))
	s.batch(3000, 2, to, 1, 2, 3)
	s.clean(t)
	s.h.Receipts[1].Delivery = uuid.NewString()
	s.one(t, history.Batch, "and was "+s.h.Receipts[0].Delivery+" in request 1 with the same deliveries")

	s, to = threeEvents()
	first := s.batch(2000, 1, to, 1, 2).Delivery
	s.event(4000, 4, "k", to)
	s.batch(5000, 1, to, 3, 4).Delivery = first
	s.one(t, history.Batch, "is also that of request 1, which has other deliveries")
}

// What failed together comes again together, unless something explains that it does not.
func TestFailedBatchesStayTogether(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		also  func(s *scene, to uuid.UUID)
		wrong bool
	}{
		"nothing":          {func(*scene, uuid.UUID) {}, true},
		"retried early":    {func(s *scene, _ uuid.UUID) { s.h.SpillAfterMS = 500 }, false},
		"a kill":           {func(s *scene, _ uuid.UUID) { s.fault("kill-random", 2500, 2500, 1) }, false},
		"a kill long ago":  {func(s *scene, _ uuid.UUID) { s.fault("kill-random", 500, 500, 1) }, true},
		"a kill later":     {func(s *scene, _ uuid.UUID) { s.fault("kill-random", 3500, 3500, 1) }, true},
		"a pause":          {func(s *scene, _ uuid.UUID) { s.fault("sigstop", 2500, 2600, 1) }, false},
		"a stop":           {func(s *scene, _ uuid.UUID) { s.fault("sigterm", 2005, 2500, 1) }, false},
		"Postgres away":    {func(s *scene, _ uuid.UUID) { s.fault("postgres-fast", 2005, 2500, 1) }, false},
		"receivers down":   {func(s *scene, _ uuid.UUID) { s.fault("receiver-down", 2005, 2500, 1) }, true},
		"new settings":     {func(s *scene, to uuid.UUID) { s.subscribe(2500, 1, batches(3)) }, false},
		"settings before":  {func(s *scene, to uuid.UUID) { s.subscribe(900, 1, batches(3)) }, true},
		"asked for one":    {func(s *scene, _ uuid.UUID) { ask(s, 2500, 2) }, false},
		"asked for others": {func(s *scene, _ uuid.UUID) { ask(s, 2500, 9) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, to := threeEvents()
			failed(s.batch(2000, 1, to, 1, 2))
			s.batch(3000, 2, to, 1)
			s.batch(3100, 2, to, 2, 3)
			s.h.Receipts[2].Type = "visit.started"
			c.also(s, to)
			if !c.wrong {
				s.clean(t)
				return
			}
			s.one(t, history.Batch, "it failed, and event 1")
		})
	}
}

// Within a request the earlier one stands first, and nobody else may come between a failure and its repetition.
func TestOrderInBatches(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		send     func(s *scene, to uuid.UUID)
		violated int
	}{
		"in one request": {func(s *scene, to uuid.UUID) { s.batch(2000, 1, to, 1, 2, 3) }, 0},
		"one by one":     {func(s *scene, to uuid.UUID) { s.batch(2000, 1, to, 1, 2); s.batch(2100, 1, to, 3) }, 0},
		"backwards":      {func(s *scene, to uuid.UUID) { s.batch(2000, 1, to, 2, 1); s.batch(2100, 1, to, 3) }, 1},
		"again together": {func(s *scene, to uuid.UUID) { failed(s.batch(2000, 1, to, 1, 2, 3)); s.batch(3000, 2, to, 1, 2, 3) }, 0},
		"at the same time": {func(s *scene, to uuid.UUID) {
			s.batch(2000, 1, to, 1).AnsweredAt = at(2500)
			s.batch(2100, 1, to, 2, 3)
		}, 2},
		"again, parted and overtaken": {func(s *scene, to uuid.UUID) {
			failed(s.batch(2000, 1, to, 1, 2, 3))
			s.batch(3000, 2, to, 2, 3)
			s.batch(3100, 2, to, 1)
			s.subscribe(2500, 1, batches(3), ordering("key"))
		}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, to := threeEvents(ordering("key"))
			c.send(s, to)
			v := s.judge()
			require.Equal(t, c.violated, v.OrderViolations, "%v", v.Findings)
			require.Equal(t, c.violated, v.Counts[history.Order])
		})
	}
}

func TestStranded(t *testing.T) {
	t.Parallel()
	s, to := threeEvents()
	s.batch(2000, 1, to, 1, 2, 3)
	s.snapshot(3000).Stranded = []history.Row{row(2, to)}
	s.last().Delivered = []history.Row{row(1, to), row(2, to), row(3, to)}
	s.one(t, history.Stranded, "nothing of its sequence stands before it")
}

// What is promised counts as seen under what struck between commit and success.
func TestSeen(t *testing.T) {
	t.Parallel()
	for strike, also := range map[string]func(*scene, uuid.UUID){
		"kill":     func(s *scene, _ uuid.UUID) { s.fault("kill-random", 1500, 1500, 1) },
		"takeover": func(s *scene, _ uuid.UUID) { s.fault("sigstop", 1500, 1600, 1) },
		"spill": func(s *scene, to uuid.UUID) {
			waiting := []history.Row{row(1, to), row(2, to), row(3, to)}
			for i := range waiting {
				waiting[i].Attempts = 0
			}
			s.snapshot(1500).Pending = waiting
			s.snapshot(3000).Delivered = waiting
		},
	} {
		s, to := threeEvents(ordering("strict"))
		s.batch(2000, 1, to, 1, 2)
		s.batch(2100, 1, to, 3)
		s.fault("kill-random", 2500, 2500, 0)
		s.fault("kill-random", 900, 900, 0)
		require.Empty(t, s.clean(t).Seen)
		also(s, to)
		require.Equal(t, map[string]int{"ordered under a " + strike: 3, "batched under a " + strike: 2}, s.clean(t).Seen)
		require.Subset(t, judge.Sights(), []string{"ordered under a " + strike, "batched under a " + strike})
	}
	require.Len(t, judge.Sights(), 6)
}

// A replay explains the repetitions of what it was asked for, and sends what the rule of today takes.
func TestReplay(t *testing.T) {
	t.Parallel()
	build := func(events ...uuid.UUID) *scene {
		s := newScene()
		to, other := s.subscribe(0, 1), s.subscribe(0, 2, func(r *history.Subscription) { r.EventTypes = []string{"nothing.ever"} })
		s.event(1000, 1, "", to)
		s.event(1001, 2, "", to)
		s.request(2000, 1, 1, to)
		s.request(2000, 2, 1, to)
		s.subscribe(3000, 2)
		f := s.fault("replay", 4000, 4500, 0)
		f.Subscription, f.Events = other, events
		again := *s.request(5000, 1, 1, to)
		again.Subscription, again.Delivery = other, deliveryID(1, other).String()
		withBody(&again, strings.ReplaceAll(string(again.Body), deliveryID(1, to).String(), again.Delivery))
		s.h.Receipts[2] = again
		return s
	}
	build(id(1, 1)).clean(t)
	build(id(1, 2)).one(t, history.Phantom, "event 1 is not for this subscription")

	s := build(id(1, 1))
	created := func(when string) {
		r := &s.h.Receipts[2]
		withBody(r, strings.Replace(string(r.Body), "12:00:01.000000Z", when, 1))
	}
	created("12:00:00.900000Z") // when it was written
	s.clean(t)
	created("12:00:00.900000Z")
	withBody(&s.h.Receipts[2], strings.Replace(string(s.h.Receipts[2].Body), "12:00:00.900000Z", "12:00:01.100000Z", 1))
	s.one(t, history.Identity, "timestamp")

	s, to := sentTwice()
	withAttempt(&s.h.Receipts[1], s, to, 2)
	s.snapshot(10_500).Delivered = rows(to)
	f := s.fault("replay", 11_000, 11_500, 0)
	f.Subscription, f.Events, f.Deliveries = to, []uuid.UUID{id(1, 1)}, []uuid.UUID{deliveryID(1, to)}
	require.Equal(t, map[string]int{"replay": 1}, s.clean(t).DuplicatesByClass)
}

// Whatever a request holds, it is judged.
func FuzzRequests(f *testing.F) {
	f.Add("2", []byte(`[{"event_data":{"n":1},"webhook_id":"x","attempt":1},{"n":2}]`))
	f.Add("", []byte(`{"event_data":{"n":1},"webhook_id":"x"}`))
	f.Add("0", []byte(`[]`))
	f.Add("1", []byte(`[null]`))
	f.Fuzz(func(t *testing.T, batch string, body []byte) {
		s, to := threeEvents(ordering("key"))
		r := s.batch(2000, 1, to, 1, 2)
		r.Batch = batch
		withBody(r, string(body))
		failed(r)
		s.batch(3000, 2, to, 1, 2, 3)
		require.NotEmpty(t, s.judge().Findings, "it is nothing that was asked for, or it failed and came again with another")
	})
}
