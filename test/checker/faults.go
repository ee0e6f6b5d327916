package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/walhook/walhook/internal/fault"
	"github.com/walhook/walhook/test/checker/history"
	"github.com/walhook/walhook/test/checker/receive"
)

// takeOverWithin bounds how long a standby may take once Postgres has let the frozen owner go, and detectWithin
// how long a relay may take to notice that its slot or publication is gone.
const (
	senderTimeout  = 3 * time.Second
	takeOverWithin = 5 * time.Second
	detectWithin   = 10 * time.Second
)

// begin starts a relay in the main place, if none runs there, and waits until it works.
func (e *episode) begin(ctx context.Context, env ...string) (*process, error) {
	if e.main.running() && len(env) == 0 {
		if state, _, _, _ := e.main.now.now(); state == "running" {
			return e.main.now, nil
		}
		return e.main.now, e.mustReach(ctx, e.main.now, recoverWithin, time.Time{}, "running")
	}
	e.end()
	for began := time.Now(); ; wait(ctx, 50*time.Millisecond) {
		p, err := e.main.start("run", e.environment(env)...)
		if err != nil {
			return nil, err
		}
		err = p.reach(ctx, recoverWithin, time.Time{}, "running") // there may be a gap to fill first
		if err == nil || p.alive() || p.killed() {
			return p, e.judgeReach(err, p)
		}
		// A relay that finds no Postgres, as after a stop, ends with a message; what starts it tries again.
		if ctx.Err() != nil || time.Since(began) > 20*time.Second {
			return p, fmt.Errorf("the relay does not start: %w", err)
		}
	}
}

// end ends the relay of the main place, if one runs: in order or not.
func (e *episode) end() {
	if !e.main.running() {
		return
	}
	if e.calm || e.rng.IntN(3) == 0 {
		e.stop(e.main)
		return
	}
	f := history.Fault{Class: killRandom, PID: e.main.now.pid(), Begin: time.Now()}
	e.main.now.kill()
	e.killed(f)
}

func (e *episode) environment(extra []string) []string {
	if e.bugs != "" {
		extra = append(extra, "WALHOOK_BUG="+e.bugs)
	}
	return extra
}

// mustReach makes a finding of a state that is not reached in time.
func (e *episode) mustReach(ctx context.Context, p *process, within time.Duration, after time.Time, states ...string) error {
	return e.judgeReach(p.reach(ctx, within, after, states...), p)
}

func (e *episode) judgeReach(err error, p *process) error {
	if err == nil || p.killed() {
		return nil
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	e.finding(history.Stuck, "%v", err)
	p.kill() // the next action begins afresh
	return nil
}

// killAt has a relay kill itself at a named point, when it comes there for a seeded time.
func killAt(point fault.Kill) func(*episode, context.Context) error {
	return func(e *episode, ctx context.Context) error {
		e.mixReceivers()
		count := 1 + e.rng.IntN(often(point))
		p, err := e.begin(ctx, fmt.Sprintf("WALHOOK_KILL=%s:%d", point, count))
		if err != nil {
			return err
		}
		e.held = point == fault.QueueWoken
		stop := e.provoke(ctx, point, p)
		defer stop()
		switch ended := p.ended(8 * time.Second); {
		case ended && p.killed():
			e.killed(history.Fault{Class: killPoint, Point: string(point), PID: p.pid(), Begin: time.Now(), Detail: fmt.Sprintf("hit %d", count)})
			stop()
			return e.afterKill(ctx)
		case ended && p.cmd.ProcessState.ExitCode() != 0: // 0: it was told to stop and did not come by the point
			e.finding(history.Stuck, "relay %d ended by itself: see %s", p.pid(), p.log)
			return nil
		}
		stop()
		return e.killNow(ctx, killRandom, p) // the point was not reached
	}
}

// killAnywhen kills a relay after a seeded while.
func (e *episode) killAnywhen(ctx context.Context) error {
	e.mixReceivers()
	p, err := e.begin(ctx)
	if err != nil {
		return err
	}
	wait(ctx, time.Duration(e.rng.IntN(400))*time.Millisecond)
	return e.killNow(ctx, killRandom, p)
}

func (e *episode) killNow(ctx context.Context, class string, p *process) error {
	f := history.Fault{Class: class, PID: p.pid(), Begin: time.Now()}
	p.kill()
	e.killed(f)
	return e.afterKill(ctx)
}

// killed notes a kill; Begin is when it was known at the latest.
func (e *episode) killed(f history.Fault) {
	f.InFlight = e.inFlight()
	e.note(f)
	e.run.hit(f)
}

// afterKill looks at the tables now and then, while no relay runs.
func (e *episode) afterKill(ctx context.Context) error {
	if e.held {
		e.held = false
		if err := e.unhold(ctx); err != nil {
			return err
		}
	}
	if e.rng.IntN(3) > 0 {
		return nil
	}
	return e.snapshot(ctx)
}

// during notes a fault that lasts while f runs.
func (e *episode) during(class string, f func() error) error {
	note := history.Fault{Class: class, Begin: time.Now(), InFlight: e.inFlight()}
	if e.main.running() {
		note.PID = e.main.now.pid()
	}
	err := f()
	note.InFlight = max(note.InFlight, e.inFlight())
	e.note(note)
	e.run.hit(note)
	return err
}

// disturb has a relay at work and something in flight when the fault begins.
func (e *episode) disturb(ctx context.Context, class string, f func() error) error {
	if _, err := e.begin(ctx); err != nil {
		return err
	}
	e.busy(ctx)
	return e.during(class, f)
}

// terminate stops a relay in order, under load.
func (e *episode) terminate(ctx context.Context) error {
	e.mixReceivers()
	if _, err := e.begin(ctx); err != nil {
		return err
	}
	e.busy(ctx)
	e.stop(e.main)
	return e.snapshot(ctx)
}

// busy waits until something is in flight, for a moment at most.
func (e *episode) busy(ctx context.Context) {
	for range 100 {
		if e.inFlight() > 0 {
			return
		}
		wait(ctx, 5*time.Millisecond)
	}
}

// stopPostgres stops the server under the relay, which must survive that and go on.
func stopPostgres(mode string) func(*episode, context.Context) error {
	return func(e *episode, ctx context.Context) error {
		e.mixReceivers()
		p, err := e.begin(ctx)
		if err != nil {
			return err
		}
		e.busy(ctx)
		return e.during("postgres-"+mode, func() error {
			began := time.Now()
			if err := e.run.server.Stop(mode); err != nil {
				return fmt.Errorf("stop Postgres: %w", err)
			}
			if took := time.Since(began); took > 20*time.Second {
				e.finding(history.Stuck, "Postgres took %s to stop (%s)", took, mode)
			}
			if err := e.run.server.Restart(ctx); err != nil {
				return fmt.Errorf("restart Postgres: %w", err)
			}
			return e.mustReach(ctx, p, 20*time.Second, began, "running")
		})
	}
}

// cutPostgres breaks the relay's connections to Postgres after a seeded number of bytes.
func (e *episode) cutPostgres(ctx context.Context) error {
	e.mixReceivers()
	if _, err := e.begin(ctx); err != nil {
		return err
	}
	return e.during("link-postgres-cut", func() error {
		for range 4 {
			cutWithin(ctx, e.main.link, e.rng.Int64N(60_000))
			wait(ctx, time.Duration(e.rng.IntN(300))*time.Millisecond)
		}
		return e.mustReach(ctx, e.main.now, 20*time.Second, time.Time{}, "running")
	})
}

// cutWithin cuts after n bytes, or after a second in which they did not come.
func cutWithin(ctx context.Context, link cutter, n int64) {
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	select {
	case <-link.CutAfter(n):
	case <-timer.C:
		link.Cut()
	case <-ctx.Done():
	}
}

type cutter interface {
	Cut()
	CutAfter(int64) <-chan struct{}
}

// holdPostgres lets nothing through to Postgres for longer than both sides are patient.
func (e *episode) holdPostgres(ctx context.Context) error {
	e.mixReceivers()
	return e.disturb(ctx, "link-postgres-hold", func() error {
		e.main.link.Hold()
		wait(ctx, time.Duration(500+e.rng.IntN(7500))*time.Millisecond)
		e.main.link.Release()
		return e.mustReach(ctx, e.main.now, 30*time.Second, time.Time{}, "running")
	})
}

func (e *episode) cutReceivers(ctx context.Context) error {
	return e.disturb(ctx, "link-receiver-cut", func() error {
		for range 6 {
			cutWithin(ctx, e.toHooks, e.rng.Int64N(20_000))
			wait(ctx, time.Duration(e.rng.IntN(100))*time.Millisecond)
		}
		return nil
	})
}

func (e *episode) holdReceivers(ctx context.Context) error {
	return e.disturb(ctx, "link-receiver-hold", func() error {
		e.toHooks.Hold()
		wait(ctx, time.Duration(300+e.rng.IntN(2500))*time.Millisecond)
		e.toHooks.Release()
		return nil
	})
}

func (e *episode) receiversDown(ctx context.Context) error {
	return e.disturb(ctx, "receiver-down", func() error {
		e.toHooks.Refuse(true)
		wait(ctx, time.Duration(300+e.rng.IntN(1500))*time.Millisecond)
		e.toHooks.Refuse(false)
		return nil
	})
}

// behave has all receivers do the same for a while.
func behave(b receive.Behaviour) func(*episode, context.Context) error {
	return func(e *episode, ctx context.Context) error {
		return e.disturb(ctx, "receiver-"+string(b), func() error {
			e.targets.SetAll(b)
			e.busy(ctx)
			wait(ctx, time.Duration(500+e.rng.IntN(1500))*time.Millisecond)
			e.targets.Heal()
			return nil
		})
	}
}

// fillDisk has Postgres report what it reports when the attempts log's disk is full.
func (e *episode) fillDisk(ctx context.Context) error {
	p, err := e.begin(ctx)
	if err != nil {
		return err
	}
	return e.during("disk-full", func() error {
		err := e.retry(ctx, func() error {
			_, err := e.db.Exec(ctx, `CREATE OR REPLACE FUNCTION public.disk_full() RETURNS trigger LANGUAGE plpgsql AS
				$$ BEGIN RAISE disk_full USING MESSAGE = 'could not extend file: No space left on device'; END $$;
				CREATE TRIGGER disk_full BEFORE INSERT ON outbox.attempts FOR EACH ROW EXECUTE FUNCTION public.disk_full()`)
			return err
		})
		if err != nil {
			return fmt.Errorf("fill the disk: %w", err)
		}
		wait(ctx, time.Duration(500+e.rng.IntN(2500))*time.Millisecond)
		err = e.retry(ctx, func() error {
			_, err := e.db.Exec(ctx, "DROP TRIGGER disk_full ON outbox.attempts")
			return err
		})
		if err != nil {
			return fmt.Errorf("free the disk: %w", err)
		}
		if !p.alive() {
			e.finding(history.Stuck, "the relay ended when the disk was full: see %s", p.log)
			return nil
		}
		return e.mustReach(ctx, p, 20*time.Second, time.Time{}, "running")
	})
}

func (e *episode) hugeTransaction(ctx context.Context) error {
	return e.disturb(ctx, "huge-transaction", func() error {
		if err := e.load.Huge(ctx, 100_000); err != nil {
			return err
		}
		wait(ctx, time.Duration(e.rng.IntN(1500))*time.Millisecond)
		return e.killNow(ctx, killRandom, e.main.now) // in the midst of it
	})
}

func (e *episode) bigRow(ctx context.Context) error {
	return e.disturb(ctx, "big-row", func() error { return e.load.Big(ctx, 5_000_000) })
}
