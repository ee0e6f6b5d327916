package acceptance_test

import (
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// The relay is killed at any moment, also while it starts: nothing is lost and nothing invented, and what
// is sent again is the same as before.
func TestKilledRelayLosesNothing(t *testing.T) {
	t.Parallel()
	const kills = 15
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))

	db := newDatabase(t)
	steady, flaky := harness.NewCollector(t), harness.NewCollector(t)
	flaky.Answer(func(harness.Request) harness.Response {
		if random.IntN(5) == 0 {
			return harness.Response{Status: 500}
		}
		return harness.Response{}
	})
	toSteady := db.subscribe(steady.URL(), "payload_format", "'raw'")
	toFlaky := db.subscribe(flaky.URL(), "payload_format", "'raw'", "max_retries", "10", "retry_delay", "'50 ms'")

	w := db.write(seed, 5*time.Millisecond)
	moments := rand.New(rand.NewPCG(seed, 2))
	for i := range kills {
		p := db.launch("--delivery-spill-after", "100ms")
		if i%3 == 0 { // anywhere in the start
			<-time.After(time.Duration(moments.IntN(400)) * time.Millisecond)
		} else { // at work
			steady.Wait(steady.Count()+1+moments.IntN(300), soon)
		}
		p.Kill()
	}
	last := db.start()
	w.halt()
	db.settled(soon)
	repeats := db.verify(toSteady, steady)
	db.verify(toFlaky, flaky)
	require.Greater(t, len(steady.ByID()), 500, "so few events that the kills had nothing to hit")
	t.Logf("%d events, %d repeats by %d kills", len(steady.ByID()), repeats, kills)
	require.Zero(t, ask[int](db, "SELECT count(*) FROM outbox.dead_letters"))
	require.Zero(t, ask[int](db, "SELECT count(*) FROM outbox.deliveries"), "rows left in the queue")

	before := steady.Count() + flaky.Count()
	last.terminate(soon)
	require.Equal(t, before, steady.Count()+flaky.Count(), "requests while the idle relay stopped")
}

// A relay that is asked to stop leaves nothing unrecorded: however often it is restarted under load, no
// receiver gets a delivery twice that it has answered.
func TestStoppedRelayRepeatsNothing(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		delay  time.Duration // of the receiver's answers
		pace   time.Duration // of the application's transactions
		rounds int
	}{
		"a fast receiver":                 {0, 5 * time.Millisecond, 5},
		"a receiver that takes its time":  {300 * time.Millisecond, 10 * time.Millisecond, 3},
		"a receiver slower than spilling": {1200 * time.Millisecond, 25 * time.Millisecond, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := newDatabase(t)
			receiver := harness.NewCollector(t)
			receiver.Answer(func(harness.Request) harness.Response { return harness.Response{Delay: after(tt.delay)} })
			id := db.subscribe(receiver.URL(), "payload_format", "'raw'", "max_in_flight", "200")

			w := db.write(7, tt.pace)
			for range tt.rounds {
				r := db.start()
				receiver.Wait(receiver.Count()+100, soon)
				r.terminate(soon)
			}
			last := db.start()
			w.halt()
			db.settled(soon)
			last.terminate(soon)
			require.Zero(t, db.verify(id, receiver), "deliveries sent again")
		})
	}
}

// after returns a channel that is closed after d; nil, which holds nothing back, when d is 0.
func after(d time.Duration) <-chan struct{} {
	if d == 0 {
		return nil
	}
	over := make(chan struct{})
	time.AfterFunc(d, func() { close(over) })
	return over
}

// A receiver that never answers keeps a stopping relay for the grace period and no longer. Its requests
// come again after the restart, under the same ids, and nobody else's do.
func TestStopDoesNotWaitForAHangingReceiver(t *testing.T) {
	t.Parallel()
	const rounds = 3
	db := newDatabase(t)
	good, hanging := harness.NewCollector(t), harness.NewCollector(t)
	never := make(chan struct{})
	hanging.Answer(func(harness.Request) harness.Response { return harness.Response{Delay: never} })
	toGood := db.subscribe(good.URL(), "payload_format", "'raw'")
	toHanging := db.subscribe(hanging.URL(), "payload_format", "'raw'", "max_in_flight", "5")

	w := db.write(8, 5*time.Millisecond)
	for range rounds {
		more := hanging.Count() + 1
		r := db.start("--delivery-grace-period", "300ms")
		good.Wait(good.Count()+100, soon)
		hanging.Wait(more, soon)
		asked := time.Now()
		r.terminate(soon)
		require.Less(t, time.Since(asked), 5*time.Second, "stopping with a grace period of 300 ms")
	}
	hung := hanging.Count()
	hanging.Answer(nil)
	db.start()
	w.halt()
	db.settled(soon)
	require.Zero(t, db.verify(toGood, good), "deliveries that were answered and sent again")
	require.LessOrEqual(t, db.verify(toHanging, hanging), hung, "only what hung is sent again")
	require.Zero(t, ask[int](db, "SELECT count(*) FROM outbox.attempts WHERE error IS NOT NULL"),
		"an attempt that the relay broke off itself counts for nothing")
}

// A relay that was asked to stop says so while the last requests end: nobody should wait for it.
func TestStoppingRelayIsNotReady(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	hanging, answer := harness.NewCollector(t), make(chan struct{})
	hanging.Answer(func(harness.Request) harness.Response { return harness.Response{Delay: answer} })
	db.subscribe(hanging.URL())
	r := db.start()
	db.publish(1)
	hanging.Wait(1, soon)
	r.Signal(syscall.SIGTERM)
	r.waitReady(503, `"stopping"`)
	close(answer)
	require.Zero(t, r.Wait(soon))
	require.Equal(t, 1, ask[int](db, "SELECT count(*) FROM outbox.attempts WHERE error IS NULL"))
}

// walhook init is killed at any moment and repeated until it gets through.
func TestKilledInitMayBeRepeated(t *testing.T) {
	t.Parallel()
	const rounds = 2
	moments := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 3))
	for range rounds {
		db := &database{t: t, url: harness.EmptyDatabase(t), slot: "walhook_" + uuid.NewString()[:8], cli: build(t)}
		for range 8 {
			p := harness.StartProcess(t, db.cli, db.env(), "init")
			<-time.After(time.Duration(moments.IntN(200)) * time.Millisecond)
			p.Kill()
		}
		code, output := db.walhook("init")
		require.Zero(t, code, output)
		db.Pool = harness.Connect(t, db.url)
		receiver := harness.NewCollector(t)
		id := db.subscribe(receiver.URL(), "payload_format", "'raw'")
		r := db.start()
		db.publish(10)
		db.settled(soon)
		require.Zero(t, db.verify(id, receiver))
		r.terminate(soon)
	}
}
