package relay_test

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay"
	"github.com/walhook/walhook/relay/webhook"
	"github.com/walhook/walhook/test/harness"
)

// logged is what a relay said.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// launchLogged runs a relay, without setting anything up, whose log is kept.
func launchLogged(t *testing.T, o relay.Options) *logged {
	t.Helper()
	var said logged
	log := zerolog.New(zerolog.MultiLevelWriter(&said, zerolog.NewTestWriter(t)))
	sender := webhook.New(webhook.Options{UserAgent: "walhook/test", Policy: webhook.Policy{AllowLoopback: true}, Log: log})
	r := &running{Relay: relay.New(o, sender, deaf{}, log), options: o, done: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	go func() {
		defer close(r.done)
		r.done <- r.Run(ctx)
	}()
	t.Cleanup(func() { _ = r.halt(); sender.Close() })
	return &said
}

const (
	altered      = "ALTER PUBLICATION walhook_events SET (publish = 'insert')"
	emitted      = "SELECT outbox.emit('a', '{\"n\": -2}')"
	dropEvents   = "DROP PUBLICATION walhook_events"
	makeEvents   = "CREATE PUBLICATION walhook_events FOR TABLE outbox.events WITH (publish = 'insert', publish_via_partition_root = true)"
	dropBoth     = "DROP PUBLICATION walhook_events, walhook_config"
	emittedLater = "SELECT outbox.emit('a', '{\"n\": 5}')"
)

// TestEmittedEventsSurviveAGap whose slot can still be read: each is delivered and kept once, and the slot stays.
func TestEmittedEventsSurviveAGap(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string][]string{
		"altered":                          {emitted, gapEvent, altered},
		"altered, events before and after": {gapEvent, altered, emitted},
		"a publication was missing":        {dropEvents, emitted, gapEvent},
		"a publication was re-created":     {dropEvents, emitted, gapEvent, makeEvents},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := harness.Database(t)
			db := harness.Connect(t, url)
			r := harness.NewCollector(t)
			subscribe(t, db, r.URL())
			first := start(t, options(url))
			exec(t, db, `SELECT outbox.emit('a', '{"n": 1}')`)
			settled(t, db)
			first.stop(t)
			statements(harm...)(t, db, first.options.Slot)
			said := launchLogged(t, first.options)
			r.Wait(3, soon)
			exec(t, db, emittedLater)
			exec(t, db, `SELECT outbox.publish('a', '{"n": 6}')`)
			r.Wait(5, soon)
			settled(t, db)
			require.Equal(t, map[string]int{"1": 1, "-1": 1, "-2": 1, "5": 1, "6": 1}, received(t, r))
			require.Equal(t, 1, recoveries(t, db))
			require.Equal(t, 3, value[int](t, db, "SELECT count(*) FROM outbox.emitted_events"))
			require.Equal(t, 0, value[int](t, db, "SELECT count(*) FROM pg_replication_slots WHERE temporary AND slot_name LIKE $1", first.options.Slot+"%"))
			require.Contains(t, said.String(), "which the slot still had")
			require.NotContains(t, said.String(), "is lost")
		})
	}
}

// TestOldSlotThatCannotBeRead is made anew: up to Postgres 15 one must name a publication, and rows written while none was
// there end the decoding. What was emitted is lost then, and the log says so.
func TestOldSlotThatCannotBeRead(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	r := harness.NewCollector(t)
	subscribe(t, db, r.URL())
	first := start(t, options(url))
	recorded(t, db)
	first.stop(t)
	statements(dropBoth, emitted, gapEvent)(t, db, first.options.Slot)
	said := launchLogged(t, first.options)
	if harness.Postgres(t).Version() >= 16 {
		r.Wait(2, soon)
		settled(t, db)
		require.Equal(t, map[string]int{"-1": 1, "-2": 1}, received(t, r))
		return
	}
	r.Wait(1, soon)
	exec(t, db, emittedLater)
	settled(t, db)
	require.Equal(t, map[string]int{"-1": 1, "5": 1}, received(t, r))
	require.Equal(t, 1, recoveries(t, db))
	require.Contains(t, said.String(), "was only in the WAL and is lost")
	require.Contains(t, said.String(), "the old slot cannot be read")
	require.NotContains(t, said.String(), "which the slot still had")
}

// TestOrderOfEmittedEventsInAGap is that of ids, with those that have rows; and there are more than a page holds.
func TestOrderOfEmittedEventsInAGap(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	r := harness.NewCollector(t)
	subscribe(t, db, r.URL(), "ordering", "'strict'")
	first := start(t, options(url))
	recorded(t, db)
	first.stop(t)
	exec(t, db, altered)
	exec(t, db, `SELECT CASE WHEN n % 2 = 0 THEN outbox.emit('a', jsonb_build_object('n', n)) ELSE outbox.publish('a', jsonb_build_object('n', n)) END FROM generate_series(1, 450) AS n`)
	want := value[string](t, db, "SELECT string_agg(n::text, ',' ORDER BY n) FROM generate_series(1, 450) AS n")
	launch(t, first.options)
	settled(t, db)
	got := []string{}
	for _, request := range r.Requests() {
		got = append(got, number(t, request))
	}
	require.Equal(t, want, strings.Join(got, ","))
	require.Equal(t, 225, value[int](t, db, "SELECT count(*) FROM outbox.emitted_events"))
}
