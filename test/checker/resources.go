package main

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/walhook/walhook/test/checker/history"
)

// resources are what a relay holds on to.
type resources struct{ goroutines, descriptors, memory int }

// trouble has one relay live through what may leave something behind in it.
func (e *episode) trouble(ctx context.Context) error {
	e.end()
	for _, class := range []string{"receiver-hang", "receiver-reset", "link-receiver-cut", "link-postgres-cut", "receiver-error"} {
		if err := e.act(ctx, fromNames(class)[0]); err != nil {
			return err
		}
	}
	return nil
}

// What an idle relay holds differs by the few senders that wait for work, a pooled connection, and what the
// collector has not given back yet.
const (
	slack       = 24
	memorySlack = 128 << 20
)

// compareResources demands of the relay that lived through all that, and has nothing left to do, that it holds
// no more than one that has just been started.
func (e *episode) compareResources(ctx context.Context) error {
	if !e.main.running() {
		return nil
	}
	old := e.main.now
	after, err := e.idleResources(ctx, old)
	if err != nil {
		return err
	}
	e.stop(e.main)
	fresh, err := e.begin(ctx)
	if err != nil {
		return err
	}
	base, err := e.idleResources(ctx, fresh)
	if err != nil {
		return err
	}
	if after.goroutines > base.goroutines+slack || after.descriptors > base.descriptors+slack || after.memory > base.memory+memorySlack {
		e.finding(history.Leak, "relay %d held %+v when it had nothing left to do, and a new one %+v", old.pid(), after, base)
	}
	return nil
}

// idleResources is the least that a relay held in two seconds, while its connections to receivers were closed.
func (e *episode) idleResources(ctx context.Context, p *process) (resources, error) {
	least := resources{math.MaxInt, math.MaxInt, math.MaxInt}
	for range 20 {
		e.targets.CloseIdle()
		wait(ctx, 100*time.Millisecond)
		metrics, err := p.get(ctx, "/metrics")
		if err != nil {
			return least, err
		}
		for name, into := range map[string]*int{"go_goroutines": &least.goroutines, "process_open_fds": &least.descriptors, "process_resident_memory_bytes": &least.memory} {
			value, err := metric(metrics, name)
			if err != nil {
				return least, err
			}
			*into = min(*into, int(value))
		}
	}
	return least, nil
}

func metric(page, name string) (float64, error) {
	for line := range strings.Lines(page) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("the relay has no metric %s", name)
}
