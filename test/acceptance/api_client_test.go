package acceptance_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// client speaks the API as a program of a user's does: with a token, over the network.
type client struct {
	t     *testing.T
	base  string // with /api/v1
	token string // empty: none is sent
}

// client returns who speaks to this relay with the token.
func (r *relay) client(token string) *client {
	return &client{t: r.t, base: r.url + "/api/v1", token: token}
}

// with is the same client with another token.
func (c *client) with(token string) *client {
	return &client{t: c.t, base: c.base, token: token}
}

// reply is an answer that was read to its end.
type reply struct {
	t      *testing.T
	asked  string // method and path
	status int
	header http.Header
	text   string
}

// send sends a request as JSON and reads the answer. headers are names and values in turn; an empty value removes one.
func (c *client) send(method, path, body string, headers ...string) reply {
	c.t.Helper()
	a, err := c.try(method, path, strings.NewReader(body), headers...)
	require.NoError(c.t, err)
	return a
}

// try is send for requests that may find nobody, and for goroutines.
func (c *client) try(method, path string, body io.Reader, headers ...string) (reply, error) {
	request, err := http.NewRequestWithContext(c.t.Context(), method, c.base+path, body)
	if err != nil {
		return reply{}, err
	}
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	request.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	transport := &http.Transport{DisableKeepAlives: true}
	own := http.Client{Timeout: time.Minute, Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	response, err := own.Do(request)
	if err != nil {
		return reply{}, err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	return reply{t: c.t, asked: method + " " + path, status: response.StatusCode, header: response.Header, text: string(text)}, err
}

func (c *client) get(path string) reply { c.t.Helper(); return c.send(http.MethodGet, path, "") }
func (c *client) post(path, body string) reply {
	c.t.Helper()
	return c.send(http.MethodPost, path, body)
}

// is requires the status and returns the answer.
func (a reply) is(status int) reply {
	a.t.Helper()
	require.Equal(a.t, status, a.status, "%s: %.2000s", a.asked, a.text)
	return a
}

// object is the answer as one JSON object, with its numbers as they were written.
func (a reply) object() object {
	a.t.Helper()
	return parsed(a.t, a.text)
}

// items are the objects of a page.
func (a reply) items() []object {
	a.t.Helper()
	return a.object().list("items")
}

// refused requires a problem document with the status, which names the place unless that is empty.
func (a reply) refused(status int, place string) object {
	a.t.Helper()
	a.is(status)
	require.Equal(a.t, "application/problem+json", a.header.Get("Content-Type"), "%s: %.500s", a.asked, a.text)
	o := a.object()
	o.has(`{"type": "about:blank", "title": "` + http.StatusText(status) + `"}`)
	require.NotEmpty(a.t, o.text("detail"))
	if place != "" {
		require.Equal(a.t, place, o.list("errors")[0].text("location"), a.text)
	}
	return o
}

// object is JSON that a test looks into. Numbers are json.Number.
type object struct {
	t       *testing.T
	members map[string]any
}

func parsed(t *testing.T, text string) object {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	o := object{t: t}
	require.NoError(t, d.Decode(&o.members), "%.2000s", text)
	return o
}

// has requires every member of the JSON object that is given, with exactly that value and its numbers written like that.
func (o object) has(text string) object {
	o.t.Helper()
	for name, value := range parsed(o.t, text).members {
		require.Contains(o.t, o.members, name)
		require.Equal(o.t, value, o.members[name], name)
	}
	return o
}

// consistsOf requires these members, whatever their values, and no others.
func (o object) consistsOf(names string) object {
	o.t.Helper()
	var all []string
	for name := range o.members {
		all = append(all, name)
	}
	require.ElementsMatch(o.t, strings.Fields(names), all)
	return o
}

// text is a member that is a string.
func (o object) text(name string) string {
	o.t.Helper()
	require.IsType(o.t, "", o.members[name], name)
	return o.members[name].(string)
}

// number is a member that is a number.
func (o object) number(name string) float64 {
	o.t.Helper()
	require.IsType(o.t, json.Number(""), o.members[name], name)
	n, err := o.members[name].(json.Number).Float64()
	require.NoError(o.t, err)
	return n
}

// moment is a member that is a time.
func (o object) moment(name string) time.Time {
	o.t.Helper()
	at, err := time.Parse(time.RFC3339Nano, o.text(name))
	require.NoError(o.t, err, name)
	return at
}

// part is a member that is an object.
func (o object) part(name string) object {
	o.t.Helper()
	require.IsType(o.t, map[string]any{}, o.members[name], name)
	return object{o.t, o.members[name].(map[string]any)}
}

// list is a member that is an array of objects.
func (o object) list(name string) []object {
	o.t.Helper()
	require.IsType(o.t, []any{}, o.members[name], name)
	var all []object
	for _, one := range o.members[name].([]any) {
		require.IsType(o.t, map[string]any{}, one, name)
		all = append(all, object{o.t, one.(map[string]any)})
	}
	return all
}
