package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// verdict is what is known about a request's signature.
type verdict string

// The verdicts.
const (
	signatureValid     verdict = "valid"
	signatureInvalid   verdict = "invalid"
	signatureMissing   verdict = "missing"   // there is a secret, but the request is not signed
	signatureUnchecked verdict = "unchecked" // the request is signed, but no secret was given
	signatureNone      verdict = "unsigned"
)

// verdictOf judges X-Webhook-Signature.
func verdictOf(secret string, header http.Header, body []byte) verdict {
	value := strings.Join(header.Values("X-Webhook-Signature"), ",")
	switch {
	case secret == "" && value == "":
		return signatureNone
	case secret == "":
		return signatureUnchecked
	case value == "":
		return signatureMissing
	case signedWith(secret, value, body):
		return signatureValid
	}
	return signatureInvalid
}

// signedWith reports whether one of the header's values, separated by commas while a secret is being
// rotated, is "sha256=" and the hexadecimal HMAC-SHA256 of the body. Each is compared in constant time.
func signedWith(secret, header string, body []byte) bool {
	mac := hmac.New(sha256.New, []byte(secret))
	_, _ = mac.Write(body) // a hash never fails
	want := mac.Sum(nil)
	valid := false
	for value := range strings.SplitSeq(header, ",") {
		digits, ok := strings.CutPrefix(strings.TrimSpace(value), "sha256=")
		sum, err := hex.DecodeString(digits)
		if ok && err == nil && hmac.Equal(sum, want) {
			valid = true
		}
	}
	return valid
}

// receivedRequest is one request and what became of it.
type receivedRequest struct {
	at      time.Time
	request *http.Request
	body    []byte
	verdict verdict
	answer  answer
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
	duplicate := p.seen(r.request.Header.Get("X-Webhook-ID"))
	if p.json {
		return p.printJSON(r, duplicate)
	}
	var text strings.Builder
	h := r.request.Header
	fmt.Fprintf(&text, "%s  %s %s  %s\n", r.at.Format("15:04:05.000"), r.request.Method, printable(r.request.URL.RequestURI()),
		orDashes(printable(h.Get("X-Webhook-Event"))))
	fmt.Fprintf(&text, "  id %s, attempt %s%s\n", orDashes(printable(h.Get("X-Webhook-ID"))), orDashes(printable(h.Get("X-Webhook-Attempt"))),
		duplicateNote(duplicate))
	fmt.Fprintf(&text, "  signature %s\n", r.verdict.explain())
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
		Duplicate bool            `json:"duplicate"`
		Answered  int             `json:"answered"`
		Error     string          `json:"error,omitempty"` // of forwarding
		Headers   http.Header     `json:"headers"`
		Body      json.RawMessage `json:"body,omitempty"`
		BodyText  string          `json:"body_text,omitempty"` // of a body that is no JSON
	}{At: r.at, Method: r.request.Method, Path: r.request.URL.RequestURI(), Event: h.Get("X-Webhook-Event"), ID: h.Get("X-Webhook-ID"),
		Attempt: h.Get("X-Webhook-Attempt"), Signature: r.verdict, Duplicate: duplicate, Answered: r.answer.status, Headers: h}
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

// explain words the verdict for people.
func (v verdict) explain() string {
	switch v {
	case signatureInvalid:
		return "INVALID: it was made with another secret or over another body"
	case signatureMissing:
		return "MISSING: the subscription has no secret"
	case signatureUnchecked:
		return "not checked: give the subscription's secret with --secret"
	case signatureNone:
		return "none: the subscription has no secret"
	}
	return string(v)
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
