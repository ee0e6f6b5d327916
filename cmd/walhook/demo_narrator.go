package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/walhook/walhook/relay/ops"
)

// narrator tells what happens on standard output. With --json it is silent.
type narrator struct {
	mu     sync.Mutex
	out    io.Writer
	quiet  bool
	latest map[string]time.Time // of a kind of notable things
	events int                  // at the last progress line
}

func newNarrator(out io.Writer, quiet bool) *narrator {
	return &narrator{out: out, quiet: quiet, latest: map[string]time.Time{}}
}

// line prints a line. A closed standard output does not end the demo.
func (n *narrator) line(format string, args ...any) {
	if n.quiet {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	_, _ = fmt.Fprintf(n.out, time.Now().Format("15:04:05.000")+"  "+format+"\n", args...)
}

// banner prints lines that stand out.
func (n *narrator) banner(lines ...string) {
	if n.quiet {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	_, _ = fmt.Fprintf(n.out, "\n    %s\n\n", strings.Join(lines, "\n    "))
}

// notable prints a line unless one of its kind was printed within the last two seconds.
func (n *narrator) notable(kind, format string, args ...any) {
	if n.quiet {
		return
	}
	n.mu.Lock()
	now := time.Now()
	recent := now.Sub(n.latest[kind]) < 2*time.Second
	if !recent {
		n.latest[kind] = now
	}
	n.mu.Unlock()
	if !recent {
		n.line(format, args...)
	}
}

// progress prints the line of every second.
func (n *narrator) progress(s demoSummary, lag ops.Lag) {
	n.line("events %d (+%d)   delivered %d of %d   retried %d   waiting %d   lag %s   p50 %.1f ms   p99 %.1f ms",
		s.Events, s.Events-n.events, s.Delivered, s.Deliveries, s.Retried, lag.QueueDepth, byteText(lag.LagBytes), s.P50MS, s.P99MS)
	n.events = s.Events
}

// summary prints the last lines.
func (n *narrator) summary(s demoSummary) {
	if s.Events == 0 {
		n.line("nothing was published")
		return
	}
	n.line("%d events committed in %.1f s became %d deliveries: %d delivered, %d of them after retries; %d dead, %d still open",
		s.Events, s.Seconds, s.Deliveries, s.Delivered, s.Retried, s.Dead, s.Deliveries-s.Delivered-s.Dead)
	n.line("from commit to arrival: p50 %.1f ms, p99 %.1f ms", s.P50MS, s.P99MS)
}
