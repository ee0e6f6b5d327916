package faults_test

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// relay is walhook run as a process.
type relay struct {
	*harness.Process
	t   *testing.T
	url string // of health and metrics
}

// start starts walhook run and waits until it serves its health. When the test ends, the race detector must have
// found nothing: a relay that is killed has no exit code to tell it.
func (db *database) start(args ...string) *relay {
	db.t.Helper()
	return db.startWith(db.env(), args...)
}

// startWith is start with another environment.
func (db *database) startWith(env []string, args ...string) *relay {
	db.t.Helper()
	p := harness.StartProcess(db.t, db.cli, env, append([]string{"run"}, args...)...)
	db.t.Cleanup(func() {
		p.Kill()
		require.NotContains(db.t, p.Stderr(), "DATA RACE")
		require.NotContains(db.t, p.Stderr(), "panic:")
	})
	var line struct{ Listen string }
	require.NoError(db.t, json.Unmarshal([]byte(p.WaitFor("walhook runs", soon)), &line))
	return &relay{Process: p, t: db.t, url: "http://" + line.Listen}
}

// running is start, and waits until the stream flows.
func (db *database) running(args ...string) *relay {
	db.t.Helper()
	r := db.start(args...)
	r.waitState("running")
	return r
}

// runningOn is running for a relay that finds its database in a configuration file.
func (db *database) runningOn(file string) *relay {
	db.t.Helper()
	r := db.startWith(db.env()[1:], "--config", file)
	r.waitState("running")
	return r
}

// terminate stops the relay in the ordinary way, which must succeed.
func (r *relay) terminate() {
	r.t.Helper()
	r.Signal(syscall.SIGTERM)
	require.Zero(r.t, r.Wait(soon), "exit code after SIGTERM")
}

// health is what /readyz tells.
type health struct {
	Status int `json:"-"`
	Ready  bool
	State  string
	Code   string
	Error  string
}

// get returns a page of the relay's: its HTTP status and body. Status 0 means that nobody answered.
func (r *relay) get(path string) (int, []byte) {
	r.t.Helper()
	client := http.Client{Timeout: 5 * time.Second}
	defer client.CloseIdleConnections()
	response, err := client.Get(r.url + path)
	if err != nil {
		return 0, []byte(err.Error())
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	require.NoError(r.t, err)
	return response.StatusCode, body
}

// health asks /readyz.
func (r *relay) health() health {
	r.t.Helper()
	status, body := r.get("/readyz")
	h := health{Status: status}
	if status != 0 {
		require.NoError(r.t, json.Unmarshal(body, &h), string(body))
	}
	return h
}

// waitState waits until the relay is ready in a state.
func (r *relay) waitState(state string) {
	r.t.Helper()
	var h health
	defer func() {
		if r.t.Failed() {
			r.t.Logf("/readyz said last: %+v", h)
		}
	}()
	harness.Eventually(r.t, soon, "the relay is "+state, func() bool {
		h = r.health()
		return h.Status == 200 && h.State == state
	})
}

// waitHalted waits until the relay has halted with one of the codes, and returns what it says. It stays alive.
func (r *relay) waitHalted(codes []string) health {
	r.t.Helper()
	var h health
	defer func() {
		if r.t.Failed() {
			r.t.Logf("/readyz said last: %+v", h)
		}
	}()
	harness.Eventually(r.t, soon, "the relay halts with "+strings.Join(codes, " or "), func() bool {
		h = r.health()
		return h.Status == 503 && slices.Contains(codes, h.Code)
	})
	status, body := r.get("/healthz")
	require.Equal(r.t, 200, status, string(body))
	return h
}
