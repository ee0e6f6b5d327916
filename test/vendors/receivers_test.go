package vendors_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// receivers is the Node process that verifies; see server.mjs.
type receivers struct{ url string }

func startReceivers(t *testing.T) receivers {
	t.Helper()
	modules := installed(t)
	dir := t.TempDir() // Node looks for packages beside the program
	require.NoError(t, copyInto(dir, "server.mjs", "verifiers.mjs"))
	require.NoError(t, os.Symlink(modules, filepath.Join(dir, "node_modules")))
	node := harness.StartProcess(t, "node", nil, filepath.Join(dir, "server.mjs"))
	return receivers{node.WaitFor("http://", soon)}
}

// set makes a receiver, or changes one.
type set struct {
	Verifier string `json:"verifier,omitempty"`
	Secret   string `json:"secret,omitempty"`
	Clock    int64  `json:"clock,omitempty"` // the time that it has, in seconds since 1970; 0: the real one
	Holds    bool   `json:"holds"`           // back all answers
}

// receiver makes or changes the receiver of that name and returns its URL.
func (r receivers) receiver(t *testing.T, name string, s set) (url string) {
	t.Helper()
	body, err := json.Marshal(s)
	require.NoError(t, err)
	url = r.url + "/" + name
	status, answer := do(t, http.MethodPut, url, nil, body)
	require.Equal(t, http.StatusOK, status, "%s", answer)
	return url
}

// request is what a receiver got, and what it said to it.
type request struct {
	Method     string            `json:"method"`
	Headers    map[string]string `json:"headers"` // names in lower case
	Body       []byte            `json:"body"`
	Status     int               `json:"status"` // 200: accepted, 401: refused, 0: not answered
	Error      string            `json:"error"`
	Understood json.RawMessage   `json:"understood"` // what the vendor's package made of it
}

// answered waits until a receiver has answered n requests and returns all that have come.
func answered(t *testing.T, url string, n int) []request { return list(t, url, "answered", n) }

// arrived does not wait for answers.
func arrived(t *testing.T, url string, n int) []request { return list(t, url, "arrived", n) }

func list(t *testing.T, url, what string, n int) (all []request) {
	t.Helper()
	status, body := do(t, http.MethodGet, fmt.Sprintf("%s?%s=%d", url, what, n), nil, nil)
	require.Equal(t, http.StatusOK, status)
	require.NoError(t, json.Unmarshal(body, &all))
	return all
}

func statuses(all []request) (list []int) {
	for _, r := range all {
		list = append(list, r.Status)
	}
	return list
}

// again sends the request to a receiver as it was and returns the status that it answers with.
func (r request) again(t *testing.T, url string) int {
	t.Helper()
	header := http.Header{}
	for name, value := range r.Headers {
		header.Set(name, value)
	}
	status, _ := do(t, r.Method, url, header, r.Body)
	return status
}

// altered is the request with other text in its body.
func (r request) altered(t *testing.T, from, to string) request {
	t.Helper()
	require.Contains(t, string(r.Body), from)
	r.Body = bytes.Replace(r.Body, []byte(from), []byte(to), 1)
	return r
}

func do(t *testing.T, method, url string, header http.Header, body []byte) (status int, answer []byte) {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	require.NoError(t, err)
	q.Header = header
	client := http.Client{Timeout: soon}
	response, err := client.Do(q)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	answer, err = io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, answer
}
