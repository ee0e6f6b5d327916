package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"os"
	"slices"
	"time"

	"golang.org/x/sync/semaphore"
)

// Limits of request bodies, in bytes but for the time.
const (
	smallBody  = 1 << 20
	largeBody  = 10<<20 + 64<<10 // the largest payload, and what is around it
	freeBody   = 64 << 10        // so much is read without asking for memory
	bodyMemory = 32 << 20        // of all bodies under way that are larger
	bodyTime   = 30 * time.Second
)

// bodyKind is what a route takes as its body.
type bodyKind int

// Kinds of bodies.
const (
	noBody bodyKind = iota // what is sent is not read
	jsonBody
	patchBody
	eventBody // as large as an event
)

func (k bodyKind) limit() int64 {
	if k == eventBody {
		return largeBody
	}
	return smallBody
}

// types lists the media types that a kind takes, the usual one first.
func (k bodyKind) types() []string {
	if k == patchBody {
		return []string{"application/merge-patch+json", "application/json"}
	}
	return []string{"application/json"}
}

// intake reads bodies and bounds the memory that those under way take together.
type intake struct {
	memory *semaphore.Weighted
	time   time.Duration // that a body may take; shorter in tests
}

func newIntake() *intake { return &intake{semaphore.NewWeighted(bodyMemory), bodyTime} }

// read reads a request's body into the call, which gives the memory back.
func (in *intake) read(c *call, kind bodyKind) *problem {
	if kind == noBody {
		c.unlimitTime()
		return nil
	}
	r := c.request
	if !slices.Contains(kind.types(), mediaType(r)) {
		p := newProblem(http.StatusUnsupportedMediaType, "Content-Type is %s, it must be %s", short(r.Header.Get("Content-Type")), kind.types()[0])
		p.header("Accept", kind.types()[0])
		return p
	}
	if r.Header.Get("Content-Encoding") != "" {
		return newProblem(http.StatusUnsupportedMediaType, "Content-Encoding is %s: send the body as it is", short(r.Header.Get("Content-Encoding")))
	}
	if r.ContentLength > kind.limit() {
		return tooLarge(kind)
	}
	return in.readWithin(c, kind)
}

// readWithin reads what has no size yet: the first part at once, and what is more when there is memory for the whole.
func (in *intake) readWithin(c *call, kind bodyKind) *problem {
	r, limit := c.request, kind.limit()
	body := http.MaxBytesReader(c.w, r.Body, limit)
	var text bytes.Buffer
	_, err := io.CopyN(&text, body, freeBody)
	if err == nil {
		weight := r.ContentLength
		if weight < 0 {
			weight = limit
		}
		ctx, cancel := context.WithTimeout(r.Context(), in.time)
		defer cancel()
		if in.memory.Acquire(ctx, weight) != nil {
			return busy()
		}
		c.release = func() { in.memory.Release(weight) }
		c.limitTime(in.time) // that it had to wait was not the client's fault
		text.Grow(int(max(0, r.ContentLength-freeBody)) + bytes.MinRead)
		_, err = io.Copy(&text, body)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return in.unread(err, kind)
	}
	c.unlimitTime()
	c.body = text.Bytes()
	return nil
}

// mediaType is what a request says its body is; one that says nothing is taken at its word where a body is expected.
func mediaType(r *http.Request) string {
	given := r.Header.Get("Content-Type")
	if given == "" {
		return "application/json"
	}
	name, parameters, err := mime.ParseMediaType(given)
	if charset := parameters["charset"]; err != nil || charset != "" && charset != "utf-8" && charset != "UTF-8" {
		return ""
	}
	return name
}

func tooLarge(kind bodyKind) *problem {
	p := newProblem(http.StatusRequestEntityTooLarge, "the body is larger than %d bytes, which is the most", kind.limit())
	p.header("Connection", "close")
	return p
}

func busy() *problem {
	p := newProblem(http.StatusServiceUnavailable, "too many large bodies are under way: try again")
	p.header("Retry-After", "5")
	p.header("Connection", "close")
	return p
}

// unread says why a body did not arrive.
func (in *intake) unread(err error, kind bodyKind) *problem {
	var most *http.MaxBytesError
	var timeout net.Error
	switch {
	case errors.As(err, &most):
		return tooLarge(kind)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		p := newProblem(http.StatusRequestTimeout, "the body did not arrive within %v", in.time)
		p.header("Connection", "close")
		return p
	}
	p := newProblem(http.StatusBadRequest, "the body ended early or is framed wrongly")
	p.header("Connection", "close")
	return p
}
