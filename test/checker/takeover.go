package main

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/walhook/walhook/internal/fault"
	"github.com/walhook/walhook/test/checker/history"
)

// other is the place where no working relay runs.
func (e *episode) other() *place {
	if e.main == e.a {
		return e.b
	}
	return e.a
}

// standby starts a second relay and waits until it stands by.
func (e *episode) standby(ctx context.Context) (*process, error) {
	p, err := e.other().start("run", e.environment(nil)...)
	if err != nil {
		return nil, err
	}
	return p, e.mustReach(ctx, p, 20*time.Second, time.Time{}, "standby", "running") // the owner may be frozen by now
}

// freeze stops the owner, somewhere or at a named point, past the server's patience; the other one takes over, and
// the sleeper, awake again, may record nothing and must stand by.
func (e *episode) freeze(ctx context.Context) error {
	e.mixReceivers()
	owner, point, err := e.beginToFreeze(ctx)
	if err != nil {
		return err
	}
	second, err := e.standby(ctx)
	if err != nil || !second.alive() {
		return err
	}
	e.busy(ctx)
	return e.during("sigstop", func() error {
		stop := e.provoke(ctx, point, owner)
		if point == "" || !owner.frozen(ctx, 3*time.Second) {
			owner.signal(syscall.SIGSTOP)
		}
		stop()
		if err := e.mustReach(ctx, second, senderTimeout+takeOverWithin, time.Time{}, "running"); err != nil {
			return err
		}
		wait(ctx, time.Duration(200+e.rng.IntN(800))*time.Millisecond) // so that the new owner gets ahead of the old one
		woken := time.Now()
		owner.signal(syscall.SIGCONT)
		if err := e.mustReach(ctx, owner, 15*time.Second, woken, "standby"); err != nil {
			return err
		}
		e.main = e.other()
		e.stop(e.other())
		return nil
	})
}

// freezePoints are where a frozen owner holds on to something: locks, claimed rows, what it has read.
var freezePoints = []fault.Kill{fault.RecordBegan, fault.RecordAttempts, fault.RecordBeforeCommit, fault.RecordCommitSent, fault.QueueBeforeClaim,
	fault.QueueClaimed, fault.StreamReceived, fault.DispatchAfterAttempt}

// beginToFreeze has a relay at work that will stop itself at a point, or where it is told to, which is no point.
func (e *episode) beginToFreeze(ctx context.Context) (*process, fault.Kill, error) {
	if e.rng.IntN(3) == 0 {
		p, err := e.begin(ctx)
		return p, "", err
	}
	point := freezePoints[e.rng.IntN(len(freezePoints))]
	p, err := e.begin(ctx, fmt.Sprintf("WALHOOK_FREEZE=%s:%d", point, 10+e.rng.IntN(20)))
	return p, point, err
}

// killOwner kills the owner beside a standby, which must take over.
func (e *episode) killOwner(ctx context.Context) error {
	e.mixReceivers()
	owner, err := e.begin(ctx)
	if err != nil {
		return err
	}
	second, err := e.standby(ctx)
	if err != nil || !second.alive() {
		return err
	}
	e.busy(ctx)
	f := history.Fault{Class: "kill-takeover", PID: owner.pid(), Begin: time.Now()}
	owner.kill()
	e.killed(f)
	e.main = e.other()
	return e.mustReach(ctx, second, takeOverWithin, time.Time{}, "running")
}
