package api

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/validation"
)

const problemType = "application/problem+json"

// problem is an error as clients get it (RFC 9457). It holds nothing that is secret and nothing of our insides.
type problem struct {
	Type      string   `json:"type" example:"about:blank" doc:"Always about:blank: the status says it"`
	Title     string   `json:"title" example:"Unprocessable Entity"`
	Status    int      `json:"status" example:"422"`
	Detail    string   `json:"detail" example:"max_retries: 11 is more than 10" doc:"What is wrong with this request, and how to mend it"`
	Errors    []detail `json:"errors,omitempty" nullable:"false"`
	Revision  *int     `json:"revision,omitempty" doc:"With 412: what the webhook has now"`
	RequestID string   `json:"request_id,omitempty" doc:"Of failures that are not the client's: the log has the cause under it"`
	headers   http.Header
}

// detail is one thing that is wrong.
type detail struct {
	Location string `json:"location" example:"body.max_retries" doc:"The member, parameter or header"`
	Message  string `json:"message" example:"11 is more than 10"`
	Value    string `json:"value,omitempty" doc:"What was given, unless that may be secret; cut to 100 characters"`
}

func newProblem(status int, format string, args ...any) *problem {
	return &problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: fmt.Sprintf(format, args...), headers: http.Header{}}
}

// wrong is a problem with one value.
func wrong(status int, location, format string, args ...any) *problem {
	d := detail{Location: location, Message: fmt.Sprintf(format, args...)}
	name := location[strings.IndexByte(location, '.')+1:]
	p := newProblem(status, "%s: %s", name, d.Message)
	p.Errors = []detail{d}
	return p
}

// with notes the value that is wrong.
func (p *problem) with(value string) *problem {
	p.Errors[0].Value = short(value)
	return p
}

func (p *problem) header(name, value string) { p.headers.Set(name, value) }

// Error, GetStatus, GetHeaders and ContentType are what huma asks errors for.
func (p *problem) Error() string { return p.Detail }

// GetStatus returns the HTTP status.
func (p *problem) GetStatus() int { return p.Status }

// GetHeaders returns headers that the answer has besides.
func (p *problem) GetHeaders() http.Header { return p.headers }

// ContentType makes it a problem document.
func (p *problem) ContentType(string) string { return problemType }

// write answers with the problem.
func (p *problem) write(w http.ResponseWriter) {
	h := w.Header()
	for name, values := range p.headers {
		h[name] = values
	}
	h.Set("Content-Type", problemType)
	text, err := json.Marshal(p)
	if err != nil {
		panic(err) // it is made of strings
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(text, '\n')) // the client has gone
}

// short cuts what a client gave to what an answer repeats.
func short(value string) string {
	const most = 100
	if value = strings.ToValidUTF8(value, "\ufffd"); utf8.RuneCountInString(value) <= most {
		return value
	}
	return string([]rune(value)[:most]) + "…"
}

// huma makes errors of its own for parameters; the variable is the way to shape them. Nor are our arrays ever null.
func init() {
	huma.DefaultArrayNullable = false
	validation.MsgExpectedOneOf = "must be one of %s"
	validation.MsgExpectedMinimumNumber = "must be at least %v"
	validation.MsgExpectedMaximumNumber = "must be at most %v"
	huma.NewError = func(status int, message string, errs ...error) huma.StatusError {
		p := newProblem(status, "%s", message)
		for _, err := range errs {
			p.Errors = append(p.Errors, parameterError(err))
		}
		if len(p.Errors) > 0 {
			p.Detail = p.Errors[0].Location[strings.IndexByte(p.Errors[0].Location, '.')+1:] + ": " + p.Errors[0].Message
		}
		return p
	}
}

// parameterError is what huma finds wrong with a parameter in the path, the query or a header. Bodies are not huma's here.
func parameterError(err error) detail {
	d, ok := err.(huma.ErrorDetailer)
	if !ok {
		return detail{Location: "query", Message: "cannot be understood"}
	}
	e := d.ErrorDetail()
	value := ""
	if e.Value != nil && e.Value != "" {
		value = short(fmt.Sprint(e.Value))
	}
	return detail{Location: short(e.Location), Message: cmp.Or(wordings[e.Message], e.Message), Value: value}
}

// wordings are ours for what huma says in words that cannot be set.
var wordings = map[string]string{
	"invalid integer":         "must be a whole number",
	"unknown query parameter": "is unknown: openapi.json lists the names",
}
