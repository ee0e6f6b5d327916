package judge_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/checker/history"
	"github.com/walhook/walhook/test/checker/judge"
)

// delivered is a clean episode: two events, two subscriptions, one retry.
func delivered() (s *scene, a, b uuid.UUID) {
	s = newScene()
	a, b = s.subscribe(0, 1), s.subscribe(0, 2)
	s.event(1000, 1, "", a, b)
	s.event(1100, 2, "", a)
	s.request(1200, 1, 1, a)
	failed(s.request(1201, 1, 1, b))
	s.request(1300, 2, 1, a)
	s.request(1400, 1, 2, b)
	s.snapshot(60_000).Delivered = []history.Row{row(1, a), row(1, b), row(2, a)}
	return s, a, b
}

func TestACleanEpisode(t *testing.T) {
	t.Parallel()
	s, _, _ := delivered()
	v := s.clean(t)
	require.Equal(t, 2, v.Events)
	require.Equal(t, 3, v.Deliveries)
	require.Equal(t, 3, v.Delivered)
}

func TestWALAgainstWriters(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		change func(s *scene)
		text   string // of the finding; empty: clean
	}{
		"rolled back":                 {func(s *scene) { s.write(history.RolledBack, 8, 9) }, ""},
		"unknown, not there":          {func(s *scene) { s.write(history.Unknown, 8, 9) }, ""},
		"unknown, there":              {func(s *scene) { s.h.Writes[0].Outcome = history.Unknown }, ""},
		"savepoint undone":            {func(s *scene) { s.h.Writes[0].Undone = []int64{8} }, ""},
		"nothing kept":                {func(s *scene) { s.write(history.Committed) }, ""},
		"committed, not there":        {func(s *scene) { s.write(history.Committed, 8) }, "has 0 of its 1 events: [8]"},
		"rolled back, there":          {func(s *scene) { s.h.Writes[0].Outcome = history.RolledBack }, "rolled back, and the WAL has 1"},
		"unknown, half there":         {func(s *scene) { s.h.Writes[0].Outcome, s.h.Writes[0].Kept = history.Unknown, []int64{1, 8} }, "unknown, and the WAL has 1 of its 2"},
		"savepoint undone, but there": {func(s *scene) { s.h.Writes = s.h.Writes[:1]; s.h.Writes[0].Undone = []int64{2} }, "savepoint"},
		"twice": {func(s *scene) {
			s.tx(1200, history.Item{Event: &history.Event{ID: id(1, 9), Type: "visit.started", Payload: json.RawMessage(`{"n":2}`)}})
		}, "event 2 is in the WAL 2 times"},
		"nobody wrote it": {func(s *scene) { s.h.Writes = s.h.Writes[:1] }, "no writer knows it"},
		"without number": {func(s *scene) {
			s.tx(1200, history.Item{Event: &history.Event{ID: id(1, 9), Type: "visit.started", Payload: json.RawMessage(`{}`)}})
		}, "have no number"},
		"expected twice":        {func(s *scene) { s.expected = append(s.expected, s.expected[0]) }, "expected twice"},
		"expected from nowhere": {func(s *scene) { e := s.expected[0]; e.Subscription = id(2, 77); s.expected = append(s.expected, e) }, "unknown"},
		"of an unknown transaction": {func(s *scene) {
			e := s.expected[2]
			e.LSN++
			e.Subscription = id(2, 2)
			s.expected = append(s.expected, e)
		}, "unknown"},
		"two of its events have one id": {func(s *scene) {
			s.event(1200, 3, "", s.expected[0].Subscription).ID = s.expected[0].Event.ID
		}, "expected twice"},
		"nothing is known of writes": {func(s *scene) { s.h.Writes[0].Kept = append(s.h.Writes[0].Kept, 2); s.h.Writes = s.h.Writes[:1] }, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _, _ := delivered()
			c.change(s)
			if c.text == "" {
				s.clean(t)
				return
			}
			s.one(t, history.Truth, c.text)
		})
	}
}

func TestLoss(t *testing.T) {
	t.Parallel()
	type fields = judge.Verdict
	cases := map[string]struct {
		change func(s *scene, to uuid.UUID)
		want   func(v fields) int // which must be 1
		text   string             // of the finding; empty: clean
	}{
		"delivered":          {func(s *scene, to uuid.UUID) { s.request(1100, 1, 1, to) }, func(v fields) int { return v.Delivered }, ""},
		"204":                {func(s *scene, to uuid.UUID) { s.request(1100, 1, 1, to).Status = 204 }, func(v fields) int { return v.Delivered }, ""},
		"early":              {func(s *scene, to uuid.UUID) { s.request(1100, 1, 1, to).Behaviour = "early" }, func(v fields) int { return v.Delivered }, ""},
		"early, not written": {func(s *scene, to uuid.UUID) { r := s.request(1100, 1, 1, to); r.Behaviour, r.Status = "early", 0 }, func(v fields) int { return v.Lost }, "(early, status 0)"},
		"reset":              {func(s *scene, to uuid.UUID) { r := s.request(1100, 1, 1, to); r.Behaviour, r.Status = "reset", 0 }, func(v fields) int { return v.Lost }, "neither dead nor waiting"},
		"never arrived":      {func(*scene, uuid.UUID) {}, func(v fields) int { return v.Lost }, "never arrived"},
		"only failures":      {func(s *scene, to uuid.UUID) { failed(s.request(1100, 1, 1, to)) }, func(v fields) int { return v.Lost }, "status 500"},
		"dead":               {func(s *scene, to uuid.UUID) { failed(s.request(1100, 1, 1, to)); s.last().Dead = rows(to) }, func(v fields) int { return v.Dead }, ""},
		"dead by the link":   {func(s *scene, to uuid.UUID) { s.fault("receiver-down", 1000, 9000, 0); s.last().Dead = rows(to) }, func(v fields) int { return v.Dead }, ""},
		"dead for no cause":  {func(s *scene, to uuid.UUID) { s.fault("sigterm", 1000, 9000, 0); s.last().Dead = rows(to) }, func(v fields) int { return v.Lost }, "died without cause"},
		"dead too early": {func(s *scene, to uuid.UUID) {
			failed(s.request(1100, 1, 1, to))
			s.last().Dead = rows(to)
			s.last().Dead[0].Attempts = 3
		}, func(v fields) int { return v.Lost }, "died after 3 of 4 attempts"},
		"dead too early, receivers down": {func(s *scene, to uuid.UUID) {
			s.fault("receiver-down", 1000, 9000, 0)
			s.last().Dead = rows(to)
			s.last().Dead[0].Attempts = 0
		}, func(v fields) int { return v.Lost }, "died after 0 of 4 attempts"},
		"cancelled": {func(s *scene, to uuid.UUID) {
			s.unsubscribe(1500, to)
			s.last().Dead = rows(to)
			s.last().Dead[0].Attempts = 0
		}, func(v fields) int { return v.Cancelled }, ""},
		"delivered, and then deleted": {func(s *scene, to uuid.UUID) { s.request(1100, 1, 1, to); s.unsubscribe(1500, to) }, func(v fields) int { return v.Delivered }, ""},
		"deleted, and no dead letter": {func(s *scene, to uuid.UUID) { s.unsubscribe(1500, to) }, func(v fields) int { return v.Lost }, "neither dead nor waiting"},
		"deleted, and waiting":        {func(s *scene, to uuid.UUID) { s.unsubscribe(1500, to); s.last().Pending = rows(to) }, func(v fields) int { return v.Lost }, "which is deleted"},
		"deleted, given up": {func(s *scene, to uuid.UUID) {
			lsn := s.expected[0].LSN
			s.unsubscribe(1500, to)
			s.h.Gaps = []history.Gap{{From: lsn - 1, Until: lsn}}
		}, func(v fields) int { return v.GivenUp }, ""},
		"recorded, and never arrived": {func(s *scene, to uuid.UUID) { s.last().Delivered = rows(to) }, func(v fields) int { return v.Lost }, "recorded as delivered and never arrived"},
		"recorded, never arrived, deleted": {func(s *scene, to uuid.UUID) {
			s.last().Delivered = rows(to)
			s.last().Dead = rows(to)
			s.unsubscribe(1500, to)
		}, func(v fields) int { return v.Lost }, "recorded as delivered and never arrived"},
		"dead only before the end": {func(s *scene, to uuid.UUID) {
			failed(s.request(1100, 1, 1, to))
			s.h.Snapshots = append([]history.Snapshot{{At: at(5000), Pending: rows(to), Dead: rows(to)}}, s.h.Snapshots...)
		}, func(v fields) int { return v.Lost }, "neither dead nor waiting"},
		"redelivered and still dead": {func(s *scene, to uuid.UUID) {
			redelivered(s, to, 51_000)
		}, func(v fields) int { return v.Lost }, "redelivered and still dead"},
		"redelivered, delivered and still dead": {func(s *scene, to uuid.UUID) {
			redelivered(s, to, 51_000)
			s.request(1200, 1, 2, to)
		}, func(v fields) int { return v.Lost }, "redelivered and still dead"},
		"redelivered before the end of faults": {func(s *scene, to uuid.UUID) {
			redelivered(s, to, 49_999)
		}, func(v fields) int { return v.Dead }, ""},
		"another one redelivered": {func(s *scene, to uuid.UUID) {
			redelivered(s, to, 51_000).Deliveries = []uuid.UUID{id(3, 9)}
		}, func(v fields) int { return v.Dead }, ""},
		"redelivered and deleted": {func(s *scene, to uuid.UUID) {
			redelivered(s, to, 51_000)
			s.unsubscribe(52_000, to)
		}, func(v fields) int { return v.Cancelled }, ""},
		"inactive, waiting": {func(s *scene, to uuid.UUID) {
			failed(s.request(1100, 1, 1, to))
			s.subscribe(1500, 1, func(r *history.Subscription) { r.Active = false })
			s.last().Pending = rows(to)
		}, func(v fields) int { return v.Waiting }, ""},
		"invalid, waiting, never arrived": {func(s *scene, to uuid.UUID) {
			s.subscribe(1500, 1, func(r *history.Subscription) { r.Filters = json.RawMessage(`{"amount":{"bogus":1}}`) })
			s.last().Pending = rows(to)
		}, func(v fields) int { return v.Waiting }, ""},
		"inactive, not waiting": {func(s *scene, to uuid.UUID) {
			failed(s.request(1100, 1, 1, to))
			s.subscribe(1500, 1, func(r *history.Subscription) { r.Active = false })
		}, func(v fields) int { return v.Lost }, "neither dead nor waiting"},
		"active, waiting": {func(s *scene, to uuid.UUID) {
			failed(s.request(1100, 1, 1, to))
			s.subscribe(1500, 1, func(r *history.Subscription) { r.Filters = json.RawMessage(`{"amount":{"gte":1},"type":["a"]}`) })
			s.last().Pending = rows(to)
		}, func(v fields) int { return v.Lost }, "which is active"},
		"given up": {func(s *scene, _ uuid.UUID) {
			lsn := s.expected[0].LSN
			s.h.Gaps = []history.Gap{{From: lsn - 1, Until: lsn}}
		}, func(v fields) int { return v.GivenUp }, ""},
		"just before the gap": {func(s *scene, _ uuid.UUID) {
			lsn := s.expected[0].LSN
			s.h.Gaps = []history.Gap{{From: lsn, Until: lsn + 1}}
		}, func(v fields) int { return v.Lost }, "never arrived"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene()
			to := s.subscribe(0, 1)
			s.event(1000, 1, "", to)
			s.snapshot(60_000).Confirmed = 0 // positions have their own test
			s.last().Slot = 0
			c.change(s, to)
			var v judge.Verdict
			if c.text == "" {
				v = s.clean(t)
			} else {
				v = s.one(t, history.Lost, c.text)
			}
			require.Equal(t, 1, c.want(v))
		})
	}
}

// redelivered lets event 1 fail and be a dead letter at the end, although an operator sent it again.
func redelivered(s *scene, to uuid.UUID, ms int) *history.Fault {
	failed(s.request(1100, 1, 1, to))
	s.last().Dead = rows(to)
	f := s.fault("redeliver", ms, ms+1, 0)
	f.Deliveries = []uuid.UUID{deliveryID(1, to)}
	return f
}

func (s *scene) last() *history.Snapshot { return &s.h.Snapshots[len(s.h.Snapshots)-1] }

// TestRowsOfNobody has a row in two snapshots that nothing asks for. That it is there twice is one finding.
func TestRowsOfNobody(t *testing.T) {
	t.Parallel()
	for state, put := range map[string]func(*history.Snapshot, history.Row){
		"delivered": func(s *history.Snapshot, r history.Row) { s.Delivered = append(s.Delivered, r) },
		"waiting":   func(s *history.Snapshot, r history.Row) { s.Pending = append(s.Pending, r) },
		"dead":      func(s *history.Snapshot, r history.Row) { s.Dead = append(s.Dead, r) },
	} {
		t.Run(state, func(t *testing.T) {
			t.Parallel()
			s, _, b := delivered()
			put(s.last(), row(2, b)) // nobody sends event 2 to b
			put(s.snapshot(60_001), row(2, b))
			require.Equal(t, 1, s.one(t, history.Phantom, state+", and recorded for nobody").Phantom)
		})
	}
}

// TestRequestsAfterTheEnd has a subscription that is closed at 10.0 s, and a request that arrives later.
func TestRequestsAfterTheEnd(t *testing.T) {
	t.Parallel()
	inactive := func(r *history.Subscription) { r.Active = false }
	unsubscribe := func(s *scene, to uuid.UUID) { s.unsubscribe(10_000, to) }
	deactivate := func(s *scene, _ uuid.UUID) { s.subscribe(10_000, 1, inactive) }
	also := func(close func(*scene, uuid.UUID), class string, begin, end int) func(*scene, uuid.UUID) {
		return func(s *scene, to uuid.UUID) { close(s, to); s.fault(class, begin, end, 0) }
	}
	cases := map[string]struct {
		close   func(s *scene, to uuid.UUID)
		arrives int
		state   string // of the finding; empty: clean
	}{
		"deleted, just in time":        {unsubscribe, 19_900, ""},
		"deleted":                      {unsubscribe, 20_100, "deleted since 2026-03-01T12:00:10Z"},
		"inactive, just in time":       {deactivate, 19_900, ""},
		"inactive":                     {deactivate, 20_100, "inactive since 2026-03-01T12:00:10Z"},
		"inactive, then deleted":       {func(s *scene, to uuid.UUID) { deactivate(s, to); s.unsubscribe(19_000, to) }, 20_100, "deleted since 2026-03-01T12:00:10Z"},
		"active again":                 {func(s *scene, to uuid.UUID) { deactivate(s, to); s.subscribe(19_000, 1) }, 40_000, ""},
		"active again later":           {func(s *scene, to uuid.UUID) { deactivate(s, to); s.subscribe(21_000, 1) }, 20_100, "inactive"},
		"Postgres away":                {also(unsubscribe, "postgres-fast", 9_000, 30_000), 39_900, ""},
		"Postgres away, long ago":      {also(unsubscribe, "postgres-fast", 9_000, 30_000), 40_100, "deleted"},
		"Postgres away before":         {also(unsubscribe, "postgres-fast", 8_000, 9_900), 20_100, "deleted"},
		"cut off":                      {also(deactivate, "link-postgres-hold", 12_000, 15_000), 24_900, ""},
		"paused":                       {also(deactivate, "sigstop", 12_000, 15_000), 24_900, ""},
		"request held back":            {also(deactivate, "link-receiver-hold", 12_000, 15_000), 24_900, ""},
		"receivers cut off":            {also(deactivate, "link-receiver-cut", 12_000, 15_000), 24_900, "inactive"},
		"relay killed":                 {also(deactivate, "kill-random", 15_000, 15_000), 24_900, "inactive"},
		"cut off, but before that too": {also(deactivate, "link-postgres-hold", 12_000, 15_000), 25_100, "inactive"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene()
			to := s.subscribe(0, 1)
			s.event(1000, 1, "", to)
			c.close(s, to)
			s.request(c.arrives, 1, 1, to)
			if c.state == "" {
				s.clean(t)
				return
			}
			v := s.one(t, history.Phantom, "sent to a subscription that has been "+c.state)
			require.Equal(t, []int{1, 1}, []int{v.Phantom, v.Delivered})
		})
	}
}

func TestNotDrained(t *testing.T) {
	t.Parallel()
	s := newScene()
	to := s.subscribe(0, 1)
	s.event(1000, 1, "", to)
	gone := s.subscribe(0, 2)
	s.event(1000, 2, "", to, gone)
	s.unsubscribe(2000, gone)
	failed(s.request(1100, 1, 1, to))
	last := s.snapshot(60_000)
	last.Confirmed, last.Slot, last.Pending = s.expected[0].LSN, s.expected[0].LSN, []history.Row{row(1, to), row(2, gone)}
	s.h.DrainedAt = time.Time{}
	v := s.one(t, history.Stuck, "not drained")
	require.Equal(t, 3, v.Waiting, "what is late is not lost")
	require.Zero(t, v.Lost)
}

func TestPhantoms(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		change func(s *scene, r *history.Receipt)
		text   string
	}{
		"not for this subscription": {func(_ *scene, r *history.Receipt) { r.Subscription = id(2, 2) }, "event 2 is not for this subscription"},
		"unknown subscription":      {func(_ *scene, r *history.Receipt) { r.Subscription = id(2, 9) }, "never was such a subscription"},
		"never committed": {func(s *scene, r *history.Receipt) {
			withBody(r, strings.ReplaceAll(string(r.Body), `"n":2`, `"n":9`))
			s.write(history.RolledBack, 9)
		}, "event 9 was never committed"},
		"no number":      {func(_ *scene, r *history.Receipt) { withBody(r, strings.ReplaceAll(string(r.Body), `"n":2`, `"m":9`)) }, "no number"},
		"no JSON":        {func(_ *scene, r *history.Receipt) { withBody(r, `{"n":`) }, "no JSON"},
		"more than JSON": {func(_ *scene, r *history.Receipt) { withBody(r, string(r.Body)+"x") }, "1 bytes behind it"},
		"no object":      {func(_ *scene, r *history.Receipt) { withBody(r, `[2]`) }, "no number"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, a, _ := delivered()
			c.change(s, s.request(1500, 2, 1, a))
			require.Equal(t, 1, s.one(t, history.Phantom, c.text).Phantom)
		})
	}
}

func TestIdentity(t *testing.T) {
	t.Parallel()
	replace := func(old, replacement string) func(*scene, *history.Receipt) {
		return func(_ *scene, r *history.Receipt) {
			body := strings.Replace(string(r.Body), old, replacement, 1)
			if body == string(r.Body) {
				panic(old + " is not in " + body)
			}
			withBody(r, body)
		}
	}
	cases := map[string]struct {
		change func(s *scene, r *history.Receipt) // the second, well made attempt
		text   string                             // of the finding; empty: clean
	}{
		"same but for the attempt":   {func(*scene, *history.Receipt) {}, ""},
		"the 10th attempt":           {func(s *scene, r *history.Receipt) { r.Attempt = 10; replace(`"attempt":2`, `"attempt":10`)(s, r) }, ""},
		"another event type header":  {func(_ *scene, r *history.Receipt) { r.Type = "visit.ended" }, "X-Webhook-Event"},
		"another event type":         {replace("visit.started", "visit.ended"), "event_type"},
		"another id header":          {func(_ *scene, r *history.Receipt) { r.Delivery = id(3, 999).String() }, "was " + deliveryID(1, id(2, 1)).String() + " before"},
		"no id":                      {func(_ *scene, r *history.Receipt) { r.Delivery = "1" }, "no UUID"},
		"the id of another delivery": {func(_ *scene, r *history.Receipt) { r.Delivery = deliveryID(2, id(2, 1)).String() }, "belongs to event 2"},
		"another webhook_id":         {replace(deliveryID(1, id(2, 1)).String(), deliveryID(2, id(2, 1)).String()), "webhook_id"},
		"attempt as text":            {replace(`"attempt":2`, `"attempt":"2"`), "attempt is -1"},
		"a field named otherwise":    {replace(`"event_type"`, `"Event_Type"`), "event_type is \"\""},
		"no attempt header":          {func(_ *scene, r *history.Receipt) { r.Attempt = 0 }, "X-Webhook-Attempt"},
		"another attempt":            {replace(`"attempt":2`, `"attempt":1`), "attempt is 1 and X-Webhook-Attempt 2"},
		"a number written otherwise": {replace("12345678901234567890.000", "12345678901234567890.00"), "the payload should be"},
		"a field less":               {replace(`,"note":"a\"b"`, ""), "the payload should be"},
		"another order of keys":      {replace(`"amount":12345678901234567890.000,"note":"a\"b"`, `"note":"a\"b","amount":12345678901234567890.000`), "the body differs"},
		"another commit time":        {replace("12:00:01.000000Z", "12:00:01.000001Z"), "timestamp"},
		"another zone":               {replace("12:00:01.000000Z", "13:00:01.000000+01:00"), "timestamp"},
		"no time":                    {replace("2026-03-01T12:00:01.000000Z", "yesterday"), "not RFC 3339"},
		"time written otherwise":     {replace("12:00:01.000000Z", "12:00:01Z"), "the body differs"},
		"an extra field":             {replace(`"attempt":2}`, `"attempt":2,"x":1}`), "the body differs"},
		"raw":                        {func(s *scene, r *history.Receipt) { withBody(r, string(s.expected[0].Event.Payload)) }, "format is raw"},
		"raw at some time": {func(s *scene, r *history.Receipt) {
			s.subscribe(1200, 1, func(row *history.Subscription) { row.Format = "raw" })
			withBody(r, string(s.expected[0].Event.Payload))
		}, ""},
		"raw, and other bytes": {func(s *scene, r *history.Receipt) {
			s.subscribe(1200, 1, func(row *history.Subscription) { row.Format = "raw" })
			withBody(r, string(s.expected[0].Event.Payload))
			withBody(s.request(3000, 1, 3, id(2, 1)), " "+string(s.expected[0].Event.Payload))
			s.fault("kill-any", 2500, 2500, 1)
		}, "the body differs"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene()
			to := s.subscribe(0, 1)
			s.event(1000, 1, "", to)
			s.event(1000, 2, "", to)
			s.request(1100, 2, 1, to)
			failed(s.request(1100, 1, 1, to))
			s.request(2000, 1, 2, to)
			c.change(s, &s.h.Receipts[2])
			if c.text == "" {
				s.clean(t)
				return
			}
			s.one(t, history.Identity, c.text)
		})
	}
}

func TestPayloadMayBeWrittenOtherwiseThanInTheWAL(t *testing.T) {
	t.Parallel()
	s := newScene()
	to := s.subscribe(0, 1)
	e := s.event(1000, 1, "", to)
	s.request(1100, 1, 1, to)
	e.Payload = json.RawMessage(`{ "note": "a\u0022b", "n": 1, "amount": 12345678901234567890.000 }`)
	s.clean(t)
}

// An event goes where its subscription pointed when it was committed, or points since, and never where it pointed
// before a change that the event follows.
func TestSettingsThatWereChangedBeforeTheEvent(t *testing.T) {
	t.Parallel()
	moved := func(row *history.Subscription) { row.URL, row.Secret = "http://127.0.0.1:1/s/v2", "second" }
	for name, c := range map[string]struct {
		path, secret string
		first        bool // the event is committed before the change
		text         string
	}{
		"new settings":                   {"/s/v2", "second", false, ""},
		"old URL":                        {"/s", "second", false, "it went to /s, where no URL of the 1 that were valid leads"},
		"old secret":                     {"/s/v2", "first", false, "the secrets that were valid make"},
		"old settings of an older event": {"/s", "first", true, ""},
		"new settings of an older event": {"/s/v2", "second", true, ""},
		"nobody's URL":                   {"/s/v3", "second", true, "it went to /s/v3"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene()
			to := s.subscribe(0, 1)
			if c.first {
				s.event(1000, 1, "", to)
			}
			s.subscribe(1001, 1, moved)
			if !c.first {
				s.event(1002, 1, "", to)
			}
			r := s.request(1003, 1, 1, to)
			r.Path, r.Signature = c.path, signed(signature(c.secret, string(r.Body)))
			if c.text == "" {
				s.clean(t)
				return
			}
			s.one(t, history.Identity, c.text)
		})
	}
}

func TestSecretOfADeletedSubscription(t *testing.T) {
	t.Parallel()
	s := newScene()
	to := s.subscribe(0, 1)
	s.event(1000, 1, "", to)
	s.unsubscribe(1001, to)
	s.fault("postgres-fast", 1000, 45_000, 0) // so that the relay can't know
	s.request(50_000, 1, 1, to)
	s.clean(t)
	s.h.Receipts[0].Signature = nil
	s.one(t, history.Identity, "is missing")
}

func TestFindingsAreBoundedAndCounted(t *testing.T) {
	t.Parallel()
	s := newScene()
	to := s.subscribe(0, 1)
	for n := range 80 {
		s.event(1000, n, "", to)
	}
	s.h.Findings = []history.Finding{{Kind: history.Leak, At: at(5), Detail: "3 descriptors"}}
	v := s.judge()
	require.Equal(t, map[history.Kind]int{history.Lost: 80, history.Leak: 1}, v.Counts)
	require.Equal(t, 80, v.Lost)
	require.Len(t, v.Findings, 51)
	require.Equal(t, s.h.Findings[0], v.Findings[50])
}

func BenchmarkJudge(b *testing.B) {
	s := newScene()
	const subscriptions, events = 10, 10_000
	var all []uuid.UUID
	for n := range subscriptions {
		all = append(all, s.subscribe(0, n, func(r *history.Subscription) { r.Ordering = "key" }))
	}
	for n := range events {
		e := &history.Event{ID: id(1, n), Type: "visit.started", Key: fmt.Sprint(n), Payload: json.RawMessage(fmt.Sprintf(`{"n": %d, "note": "%s"}`, n, strings.Repeat("x", 100)))}
		tx := s.tx(n, history.Item{Event: e})
		s.write(history.Committed, int64(n))
		for _, to := range all {
			s.expected = append(s.expected, judge.Expected{LSN: tx.LSN, Event: e, Subscription: to})
			delivery := deliveryID(n, to)
			body := fmt.Sprintf(`{"event_type":"visit.started","event_data":%s,"webhook_id":"%s","timestamp":"%s","attempt":1}`, e.Payload, delivery, tx.CommittedAt.Format(time.RFC3339Nano))
			s.h.Receipts = append(s.h.Receipts, history.Receipt{Seq: int64(len(s.h.Receipts) + 1), Subscription: to, Delivery: delivery.String(), Type: e.Type,
				Attempt: 1, ArrivedAt: at(n + 5), AnsweredAt: at(n + 6), Behaviour: "ok", Status: 200})
			withBody(&s.h.Receipts[len(s.h.Receipts)-1], body)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		v := s.judge()
		require.True(b, v.Clean(), "%v", v.Findings)
	}
	b.ReportMetric(float64(len(s.h.Receipts)*b.N)/b.Elapsed().Seconds(), "receipts/s")
}
