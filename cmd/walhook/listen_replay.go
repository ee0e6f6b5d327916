package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/walhook/walhook/outbox/receiver"
)

// replayed is the outcome of sending one saved request again.
type replayed struct {
	File     string `json:"file"`
	Method   string `json:"method"`
	Event    string `json:"event"`
	ID       string `json:"id"`
	Answered int    `json:"answered,omitempty"` // absent when nobody answered
	Error    string `json:"error,omitempty"`
	Body     string `json:"body,omitempty"` // of the answer
}

// replayRequests sends saved requests in their order and prints what is answered. That one fails keeps none from
// being sent; the error at the end counts them.
func replayRequests(ctx context.Context, out io.Writer, o listenOptions) error {
	if o.forward == "" {
		return fmt.Errorf("%w: --replay needs --forward-to: the URL to send the requests to", errUsage)
	}
	target, err := forwardTarget(o.forward)
	if err != nil {
		return err
	}
	files, err := savedFiles(o.replay)
	if err != nil {
		return err
	}
	f := newForwarder(target)
	defer f.close()
	failed := 0
	for _, file := range files {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		r := f.replay(ctx, file)
		if r.Answered < 200 || r.Answered > 299 {
			failed++
		}
		if err := r.print(out, o.json); err != nil {
			return fmt.Errorf("print an answer: %w", err)
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d requests were not answered 200 to 299", failed, len(files))
	}
	return nil
}

func (f *forwarder) replay(ctx context.Context, file string) replayed {
	r := replayed{File: file}
	saved, err := readSaved(file)
	if err != nil {
		r.Error = err.Error()
		return r
	}
	r.Method, r.Event, r.ID = saved.Method, eventOf(saved.Headers), receiver.IDOf(saved.Headers)
	a := f.pass(ctx, saved.Method, saved.Headers, saved.body())
	if a.err != nil {
		r.Error = a.err.Error()
		return r
	}
	r.Answered, r.Body = a.status, string(a.body)
	return r
}

func (r replayed) print(out io.Writer, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(out)
		e.SetEscapeHTML(false)
		return e.Encode(r)
	}
	result := fmt.Sprintf("answered %d", r.Answered)
	if r.Error != "" {
		result = "FAILED: " + r.Error
	}
	if r.Body != "" {
		result += "\n" + prettyBody([]byte(r.Body))
	}
	_, err := fmt.Fprintf(out, "%s  %s %s  id %s  %s\n", printable(r.File), printable(r.Method), orDashes(printable(r.Event)),
		orDashes(printable(r.ID)), printable(result))
	return err
}
