package ui

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"time"
)

const (
	keepAlive    = 15 * time.Second // between comments, so that nobody on the way takes the connection for dead
	streamWithin = 10 * time.Second // a browser must have taken what was sent
)

// stream sends a page's news until it is closed, hangs, or its token is valid no longer.
func (p *livePage) stream(ctx context.Context, w http.ResponseWriter, h *hub) {
	header := w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("X-Accel-Buffering", "no") // nginx would collect what is meant for now
	header.Set("Connection", "close")     // the write deadline outlives the stream
	w.WriteHeader(http.StatusOK)
	alive := time.NewTicker(keepAlive)
	defer alive.Stop()
	next := []byte(":\n\n") // at once, so that the browser knows that it is connected
	for {
		if !sendNow(w, next) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-p.ended:
			return
		case <-alive.C:
			next = []byte(":\n\n")
		case <-p.news:
			next = encode(h.unsent(p))
		}
	}
}

// sendNow writes under a deadline, and reports whether the page is still there.
func sendNow(w http.ResponseWriter, b []byte) bool {
	c := http.NewResponseController(w)
	_ = c.SetWriteDeadline(time.Now().Add(streamWithin))
	if _, err := w.Write(b); err != nil {
		return false
	}
	return c.Flush() == nil
}

// encode writes messages as server-sent events. A line break within data begins a new data line.
func encode(messages []message) []byte {
	var b bytes.Buffer
	for _, m := range messages {
		if m.name != "" {
			b.WriteString("event: " + m.name + "\n")
		}
		for line := range strings.SplitSeq(lineBreaks.Replace(m.data), "\n") {
			b.WriteString("data: " + line + "\n")
		}
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// lineBreaks makes all that an event stream takes for the end of a line one thing: data must not end their event.
var lineBreaks = strings.NewReplacer("\r\n", "\n", "\r", "\n")
