package main

import (
	"bytes"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/webhook"
)

// The types of the benchmark's events. The subscription takes none of the floor's, so that what was published
// for the bare loop costs the relay nothing but reading past it.
const (
	benchType  = "bench.event.created"
	floorType  = "floor.event.created"
	benchTypes = "bench.*"
)

// benchNote makes a payload of about 300 bytes, an ordinary size for an event.
var benchNote = strings.Repeat("0123456789abcdef", 16)

// benchPayload is the payload of one event, in the form in which jsonb prints it, so that the raw client can
// send the same bytes. sent is in nanoseconds since 1970; the zero time asks not to be measured.
func benchPayload(seq int, sent time.Time) string {
	var ns int64
	if !sent.IsZero() {
		ns = sent.UnixNano()
	}
	return `{"seq": ` + strconv.Itoa(1_000_000+seq) + `, "note": "` + benchNote + `", "sent": ` + strconv.FormatInt(ns, 10) + `}`
}

var sentField = []byte(`"sent": `)

// sentAt finds the time of sending in a request's body; false means that it is not to be measured.
func sentAt(body []byte) (time.Time, bool) {
	_, rest, found := bytes.Cut(body, sentField)
	if !found {
		return time.Time{}, false
	}
	end := bytes.IndexByte(rest, '}')
	if end < 0 {
		return time.Time{}, false
	}
	ns, err := strconv.ParseInt(string(rest[:end]), 10, 64)
	return time.Unix(0, ns), err == nil && ns > 0
}

// benchBodies are request bodies as the relay makes them.
func benchBodies(n int) [][]byte {
	bodies := make([][]byte, n)
	for i := range bodies {
		d := &delivery.Delivery{ID: uuid.New(), Event: &delivery.Event{Type: benchType, Payload: []byte(benchPayload(i, time.Time{})), CommittedAt: time.Now()}}
		bodies[i] = webhook.AppendEnvelope(nil, d, 1)
	}
	return bodies
}
