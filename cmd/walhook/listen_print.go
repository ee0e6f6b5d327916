package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/walhook/walhook/outbox/receiver"
)

// receivedRequest is one request and what became of it.
type receivedRequest struct {
	at      time.Time
	request *http.Request
	body    []byte
	judgement
	answer answer
}

// rememberedIDs is how many delivery ids are remembered to tell duplicates.
const rememberedIDs = 100_000

// requestPrinter writes requests for people or as JSON. It remembers delivery ids in two generations, so
// that the memory for them is bounded.
type requestPrinter struct {
	out        io.Writer
	json       bool
	ids, older map[string]bool
}

func newRequestPrinter(out io.Writer, asJSON bool) *requestPrinter {
	return &requestPrinter{out: out, json: asJSON, ids: map[string]bool{}}
}

// seen reports whether the id has come before.
func (p *requestPrinter) seen(id string) bool {
	if id == "" {
		return false
	}
	if p.ids[id] || p.older[id] {
		return true
	}
	if len(p.ids) >= rememberedIDs {
		p.ids, p.older = map[string]bool{}, p.ids
	}
	p.ids[id] = true
	return false
}

func (p *requestPrinter) print(r *receivedRequest) error {
	duplicate := p.seen(receiver.IDOf(r.request.Header))
	if p.json {
		return p.printJSON(r, duplicate)
	}
	var text strings.Builder
	h := r.request.Header
	fmt.Fprintf(&text, "%s  %s %s  %s\n", r.at.Format("15:04:05.000"), r.request.Method, printable(r.request.URL.RequestURI()),
		orDashes(printable(eventOf(h))))
	fmt.Fprintf(&text, "  id %s, attempt %s%s\n", orDashes(printable(receiver.IDOf(h))), orDashes(printable(h.Get("X-Webhook-Attempt"))),
		duplicateNote(duplicate))
	fmt.Fprintf(&text, "  signature %s\n", printable(r.explain()))
	if r.answer.err != nil {
		fmt.Fprintf(&text, "  answered %d, because forwarding failed: %s\n", r.answer.status, printable(r.answer.err.Error()))
	} else {
		fmt.Fprintf(&text, "  answered %d\n", r.answer.status)
	}
	text.WriteString(prettyBody(r.body) + "\n\n")
	_, err := io.WriteString(p.out, text.String())
	return err
}

func (p *requestPrinter) printJSON(r *receivedRequest, duplicate bool) error {
	h := r.request.Header
	line := struct {
		At        time.Time       `json:"at"`
		Method    string          `json:"method"`
		Path      string          `json:"path"`
		Event     string          `json:"event"`
		ID        string          `json:"id"`
		Attempt   string          `json:"attempt"`
		Signature verdict         `json:"signature"`
		Scheme    receiver.Scheme `json:"scheme,omitempty"` // of a request that is signed
		Duplicate bool            `json:"duplicate"`
		Answered  int             `json:"answered"`
		Error     string          `json:"error,omitempty"` // of forwarding
		Headers   http.Header     `json:"headers"`
		Body      json.RawMessage `json:"body,omitempty"`
		BodyText  string          `json:"body_text,omitempty"` // of a body that is no JSON
	}{At: r.at, Method: r.request.Method, Path: r.request.URL.RequestURI(), Event: eventOf(h), ID: receiver.IDOf(h),
		Attempt: h.Get("X-Webhook-Attempt"), Signature: r.verdict, Scheme: r.scheme, Duplicate: duplicate, Answered: r.answer.status, Headers: h}
	if r.answer.err != nil {
		line.Error = r.answer.err.Error()
	}
	if json.Valid(r.body) {
		line.Body = r.body
	} else {
		line.BodyText = string(r.body)
	}
	e := json.NewEncoder(p.out)
	e.SetEscapeHTML(false)
	return e.Encode(line)
}

// eventOf is the type that the headers name, in walhook's way or another sender's.
func eventOf(h http.Header) string {
	for _, name := range []string{"X-Webhook-Event", "Ce-Type", "X-Github-Event", "X-Shopify-Topic"} {
		if event := h.Get(name); event != "" {
			return event
		}
	}
	return ""
}

func duplicateNote(duplicate bool) string {
	if duplicate {
		return "  DUPLICATE: this id has come before"
	}
	return ""
}

func orDashes(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// prettyBody indents JSON without touching its numbers and strings. Anything else is shown as it is.
func prettyBody(body []byte) string {
	var out bytes.Buffer
	if err := json.Indent(&out, body, "  ", "  "); err != nil || out.Len() == 0 {
		return "  " + strings.ReplaceAll(printable(string(body)), "\n", "\n  ")
	}
	return "  " + printable(strings.TrimSpace(out.String()))
}
