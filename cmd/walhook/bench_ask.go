package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// benchStalled is how long nothing may arrive before the benchmark gives up.
const benchStalled = 60 * time.Second

// benchReceiverProcess is the receiver as the benchmark sees it.
type benchReceiverProcess struct {
	*benchChild
	benchAddresses
}

func startReceiver(dir string) (*benchReceiverProcess, error) {
	child, err := startBenchChild(dir, nil, "bench-receiver")
	if err != nil {
		return nil, err
	}
	r := &benchReceiverProcess{benchChild: child}
	if err := child.hello(&r.benchAddresses); err != nil {
		child.kill()
		return nil, err
	}
	return r, nil
}

// expect begins a phase of want requests. With timed set only those that tell when they were sent count.
func (r *benchReceiverProcess) expect(ctx context.Context, want int, timed bool) error {
	query := url.Values{"want": {strconv.Itoa(want)}, "timed": {strconv.FormatBool(timed)}}
	return r.ask(ctx, http.MethodPost, "/expect?"+query.Encode(), nil)
}

// result waits until the phase is complete. alive tells whether whoever sends still can.
func (r *benchReceiverProcess) result(ctx context.Context, alive func() error) (benchReceipts, error) {
	var before int64
	since := time.Now()
	for {
		var now benchReceipts
		if err := r.ask(ctx, http.MethodGet, "/result", &now); err != nil {
			return benchReceipts{}, err
		}
		if now.Complete {
			return now, nil
		}
		if now.Count != before {
			before, since = now.Count, time.Now()
		}
		if err := alive(); err != nil {
			return benchReceipts{}, fmt.Errorf("after %d requests: %w", now.Count, err)
		}
		if time.Since(since) > benchStalled {
			return benchReceipts{}, fmt.Errorf("nothing has arrived for %s after %d requests", benchStalled, now.Count)
		}
	}
}

func (r *benchReceiverProcess) ask(ctx context.Context, method, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, r.Control+path, nil)
	if err != nil {
		return fmt.Errorf("ask the receiver: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("ask the receiver: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ask the receiver: %s", resp.Status)
	}
	if into == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		return fmt.Errorf("ask the receiver: %w", err)
	}
	return nil
}
