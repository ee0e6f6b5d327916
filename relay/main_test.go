package relay_test

import (
	"context"
	"flag"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay"
	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/webhook"
	"github.com/walhook/walhook/test/harness"
)

// TestMain lets more tests run at a time than there are processors: many wait for the relay's next look.
func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "4") // before the command line is read, which wins
	harness.Main(m)
}

// deaf is an observer that keeps nothing.
type deaf struct{}

func (deaf) Event() {}
func (deaf) Attempt(*delivery.Settings, *delivery.Outcome, delivery.State, time.Duration) {
}
func (deaf) Heartbeat(time.Duration)     {}
func (deaf) Recorded(int, time.Duration) {}

func options(url string) relay.Options {
	return relay.Options{URL: url, Slot: "walhook_" + uuid.NewString()[:8], Version: "test",
		ConnectTimeout: 10 * time.Second, StatusInterval: 10 * time.Second,
		RecordInterval: 20 * time.Millisecond, MaxUnrecorded: 8192, MaxUnrecordedBytes: 32 << 20, SpillAfter: time.Second,
		MaxSenders: 256, GracePeriod: 10 * time.Second, LeaseMargin: 30 * time.Second,
		PollQueue: time.Minute} // so that a wake-up which is missed fails a test
}

// running is a relay in this process.
type running struct {
	*relay.Relay
	options relay.Options
	cancel  context.CancelFunc
	done    chan error
	stopped error // what Run returned
}

// halt stops the relay and returns what Run did, the first time and ever after.
func (r *running) halt() error {
	r.cancel()
	if err, open := <-r.done; open {
		r.stopped = err
	}
	return r.stopped
}

// stop stops the relay gracefully, before its test ends.
func (r *running) stop(t *testing.T) {
	t.Helper()
	require.NoError(t, r.halt())
}

// start sets the database up and runs a relay until the test ends.
func start(t *testing.T, o relay.Options) *running {
	t.Helper()
	_, err := relay.Setup(t.Context(), o.URL, o.Slot)
	require.NoError(t, err)
	return launch(t, o)
}

// launch runs a relay, without setting anything up, until the test ends.
func launch(t *testing.T, o relay.Options) *running {
	t.Helper()
	return launchObserved(t, o, deaf{})
}

// launchWith sets the database up and runs a relay that tells what happens.
func launchWith(t *testing.T, o relay.Options, observer relay.Observer) *running {
	t.Helper()
	_, err := relay.Setup(t.Context(), o.URL, o.Slot)
	require.NoError(t, err)
	return launchObserved(t, o, observer)
}

func launchObserved(t *testing.T, o relay.Options, observer relay.Observer) *running {
	t.Helper()
	log := zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.DebugLevel)
	sender := webhook.New(webhook.Options{UserAgent: "walhook/test", Policy: webhook.Policy{AllowLoopback: true}, Log: log})
	r := &running{Relay: relay.New(o, sender, observer, log), options: o, done: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	go func() {
		defer close(r.done)
		r.done <- r.Run(ctx)
	}()
	t.Cleanup(func() { _ = r.halt(); sender.Close() })
	return r
}

// subscribe inserts a subscription and returns its id.
func subscribe(t *testing.T, db *pgxpool.Pool, url string, set ...string) uuid.UUID {
	t.Helper()
	columns, values := "name, url", "'test', $1"
	for i := 0; i+1 < len(set); i += 2 {
		columns += ", " + set[i]
		values += ", " + set[i+1]
	}
	var id uuid.UUID
	require.NoError(t, db.QueryRow(t.Context(), "INSERT INTO outbox.subscriptions ("+columns+") VALUES ("+values+") RETURNING id", url).Scan(&id))
	return id
}

// exec runs a statement.
func exec(t testing.TB, db *pgxpool.Pool, sql string, args ...any) {
	t.Helper()
	_, err := db.Exec(t.Context(), sql, args...)
	require.NoError(t, err)
}

// value reads one value.
func value[T any](t testing.TB, db *pgxpool.Pool, sql string, args ...any) T {
	t.Helper()
	var v T
	require.NoError(t, db.QueryRow(t.Context(), sql, args...).Scan(&v), sql)
	return v
}
