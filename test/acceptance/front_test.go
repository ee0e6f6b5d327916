package acceptance_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

const everywhere = "0.0.0.0:0"

// public starts walhook run on an address that others can reach, and returns it once it says where.
func (db *database) public(env ...string) *relay {
	db.t.Helper()
	p := harness.StartProcess(db.t, db.cli, append(db.env(), env...), "run", "--listen", everywhere)
	var line struct{ Listen string }
	require.NoError(db.t, json.Unmarshal([]byte(p.WaitFor("walhook runs", soon)), &line))
	_, port, err := net.SplitHostPort(line.Listen)
	require.NoError(db.t, err)
	return &relay{Process: p, t: db.t, url: "http://127.0.0.1:" + port}
}

// An address that others can reach takes a token, or no API and dashboard at all.
func TestAPublicAddressTakesAToken(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	refused := func() {
		t.Helper()
		r := run(t, db.env(), "run", "--listen", everywhere)
		require.Equal(t, 2, r.code, r.stderr)
		for _, says := range []string{"[::]:", "walhook token create", "WALHOOK_API_TOKEN", "WALHOOK_API_ENABLED=false"} {
			require.Contains(t, strings.ReplaceAll(r.stderr, "0.0.0.0:", "[::]:"), says)
		}
	}
	refused()
	r := db.public("WALHOOK_API_ENABLED=false")
	require.Equal(t, http.StatusNotFound, r.as("", webhooks))
	require.Equal(t, http.StatusNotFound, r.as("", "/"))
	require.Equal(t, http.StatusOK, r.as("", "/healthz"))
	r.terminate(soon)

	r = db.public("WALHOOK_API_TOKEN=a-token-of-the-configuration")
	require.Equal(t, http.StatusUnauthorized, r.as("", webhooks))
	r.terminate(soon)

	token := db.newToken("--name", "n")
	r = db.public()
	require.Equal(t, http.StatusOK, r.as(token, webhooks))
	r.terminate(soon)

	db.do("UPDATE outbox.api_tokens SET expires_at = now()")
	refused()
}

// As long as nobody knows whether there is a token, nobody is answered but who asks for health.
func TestAPublicAddressWaitsForTheDatabase(t *testing.T) {
	t.Parallel()
	server := harness.StartServer(t, "", nil)
	db := prepared(t, server.URL("postgres"))
	token := db.newToken("--name", "n")
	require.NoError(t, server.Stop("fast"))
	r := db.public()
	require.Equal(t, http.StatusServiceUnavailable, r.as(token, webhooks))
	require.Equal(t, http.StatusServiceUnavailable, r.as(token, "/"))
	require.Equal(t, http.StatusOK, r.as("", "/healthz"))
	require.NoError(t, server.Restart(t.Context()))
	db.Reset()
	r.waitReady(200, "running")
	require.Equal(t, http.StatusOK, r.as(token, webhooks))
	r.terminate(soon)
	_, err := db.Exec(t.Context(), "UPDATE outbox.api_tokens SET revoked_at = now()")
	require.NoError(t, err)

	require.NoError(t, server.Stop("fast"))
	r = db.public()
	require.NoError(t, server.Restart(t.Context()))
	db.Reset()
	require.Equal(t, 2, r.Wait(soon), "the token was revoked meanwhile")
	require.Contains(t, r.Stderr(), "walhook token create")
}

// Paths, tokens and addresses change without a new process, and what cannot be used changes nothing.
func TestReloadMovesAPIAndMetrics(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	file := newSettingsFile(t)
	r := db.startWith(file)
	token := db.newToken("--name", "n", "--scope", "read,manage")
	require.Equal(t, http.StatusOK, r.as(token, webhooks))
	require.Equal(t, http.StatusOK, r.as("", "/metrics"))

	own, err := net.Listen("tcp", "127.0.0.1:0") // a port that is free
	require.NoError(t, err)
	metrics := own.Addr().String()
	require.NoError(t, own.Close())
	file.write("path_prefix: /hooks", "metrics_listen: "+metrics, "api: {token: a-token-of-the-configuration}")
	r.reload(`"changed":["path_prefix","metrics_listen","api.token"],"restarted":true`)
	require.Equal(t, http.StatusNotFound, r.as(token, webhooks))
	require.Equal(t, http.StatusOK, r.as(token, "/hooks"+webhooks))
	require.Equal(t, http.StatusOK, r.as("a-token-of-the-configuration", "/hooks"+webhooks))
	require.Equal(t, http.StatusNotFound, r.as("", "/metrics"))
	require.Equal(t, http.StatusOK, r.as("", "/healthz"))
	moved := &relay{t: t, url: "http://" + metrics}
	status, body := moved.get("/metrics")
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, body, "walhook_events_total")

	file.write("path_prefix: hooks/")
	before := strings.Count(r.Stderr(), "reload refused")
	r.Signal(syscall.SIGHUP)
	harness.Eventually(t, soon, "the reload is refused", func() bool { return strings.Count(r.Stderr(), "reload refused") == before+1 })
	require.Contains(t, r.Stderr(), "path_prefix")
	require.Equal(t, http.StatusOK, r.as(token, "/hooks"+webhooks))

	file.write("api: {enabled: false}")
	r.reload(`"changed":["path_prefix","metrics_listen","api.enabled","api.token"],"restarted":true`)
	require.Equal(t, http.StatusNotFound, r.as(token, "/hooks"+webhooks))
	require.Equal(t, http.StatusNotFound, r.as(token, webhooks))
	require.Equal(t, http.StatusOK, r.as("", "/metrics"))
	require.Zero(t, moved.as("", "/metrics"), "nobody answers there any more")
	r.terminate(soon)
}

// Whoever asks during a reload is answered, by the old settings or by the new ones.
func TestReloadKeepsAnswering(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	token := db.newToken("--name", "n")
	file := newSettingsFile(t)
	r := db.startWith(file)
	r.waitReady(200, "running")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	statuses := make(chan map[int]int)
	go func() {
		seen := map[int]int{}
		for ctx.Err() == nil {
			seen[r.as(token, webhooks)]++
		}
		statuses <- seen
	}()
	for n := range 3 {
		file.write("delivery:", fmt.Sprintf("  max_senders: %d", 100+n))
		r.Signal(syscall.SIGHUP)
		harness.Eventually(t, soon, "the next relay has the slot", func() bool { return db.epoch() == 2+n })
	}
	stop()
	seen := <-statuses
	require.Len(t, seen, 1, "%v", seen)
	require.Positive(t, seen[http.StatusOK])
	r.terminate(soon)
}

// login is a browser that is logged in to the dashboard under that prefix.
func (r *relay) login(token, prefix string) *http.Client {
	r.t.Helper()
	jar, err := cookiejar.New(nil)
	require.NoError(r.t, err)
	client := &http.Client{Jar: jar}
	r.t.Cleanup(client.CloseIdleConnections)
	response, err := client.PostForm(r.url+prefix+"/login", url.Values{"token": {token}})
	require.NoError(r.t, err)
	require.NoError(r.t, response.Body.Close())
	require.Equal(r.t, http.StatusOK, response.StatusCode)
	require.Equal(r.t, prefix+"/", response.Request.URL.Path)
	return client
}

// The dashboard knows what this process does, where the slot is heading and what the doctor finds, also behind a prefix.
func TestTheDashboardIsToldOfTheRelay(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	const prefix = "/hooks/walhook"
	r := db.start("--path-prefix", prefix, "--replication-wal-disk-size", "7GiB")
	r.waitReady(200, "running")
	client := r.login(db.newToken("--name", "n"), prefix)
	for path, says := range map[string]string{"/": "running", "/slot": "running", "/slot/forecast": "never lost, but wal may fill the disk", "/slot/doctor": "superuser"} {
		response, err := client.Get(r.url + prefix + path)
		require.NoError(t, err)
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		require.Equal(t, http.StatusOK, response.StatusCode, "%s: %s", path, body)
		require.Contains(t, strings.ToLower(string(body)), says, path)
	}
	r.terminate(soon)
}

// A dashboard that somebody looks at holds neither a reload nor the stop.
func TestAnOpenPageHoldsNothing(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	token := db.newToken("--name", "n", "--scope", "read,manage")
	file := newSettingsFile(t)
	r := db.startWith(file)
	r.waitReady(200, "running")

	client := r.login(token, "")
	listen := func() (ended <-chan struct{}) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.url+"/slot/live", nil)
		require.NoError(t, err)
		request.Header.Set("Accept", "text/event-stream")
		response, err := client.Do(request)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, response.StatusCode)
		require.Equal(t, "text/event-stream", response.Header.Get("Content-Type"))
		gone := make(chan struct{})
		go func() {
			_, _ = io.Copy(io.Discard, response.Body)
			_ = response.Body.Close()
			close(gone)
		}()
		return gone
	}
	page := listen()
	file.write("delivery: {max_senders: 7}")
	r.reload(`"changed":["delivery.max_senders"],"restarted":true`)
	within(t, page, "the page is told to connect again")
	page = listen()
	begin := time.Now()
	r.terminate(soon)
	require.Less(t, time.Since(begin), 10*time.Second)
	within(t, page, "the page ends")
}

func within(t *testing.T, done <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(soon):
		t.Fatal(what)
	}
}

// The address of metrics is the relay's own as well: no webhook may go there.
func TestMetricsAreNoReceiver(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := db.launch("--metrics-listen", "127.0.0.1:0")
	var line struct {
		Metrics string `json:"metrics_listen"`
	}
	require.NoError(t, json.Unmarshal([]byte(r.WaitFor("walhook runs", soon)), &line))
	db.subscribe("http://"+line.Metrics+"/metrics", "max_retries", "0")
	require.Equal(t, "address 127.0.0.1 is refused (the relay's own or its database's): no setting allows it", db.refusal())
}

// A reload that would open API and dashboard to others without a token is refused.
func TestReloadRefusesAPublicAddressWithoutAToken(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	file := newSettingsFile(t)
	good := []string{"database_url: '" + db.url + "'", "slot: " + db.slot}
	file.write(append(good, "listen: 127.0.0.1:0")...)
	p := harness.StartProcess(t, db.cli, []string{"GORACE=atexit_sleep_ms=0"}, "run", "--config", file.path)
	var line struct{ Listen string }
	require.NoError(t, json.Unmarshal([]byte(p.WaitFor("walhook runs", soon)), &line))
	r := &relay{Process: p, t: t, url: "http://" + line.Listen}
	r.waitReady(200, "running")
	file.write(append(good, "listen: "+everywhere)...)
	p.Signal(syscall.SIGHUP)
	harness.Eventually(t, soon, "the reload is refused", func() bool { return strings.Contains(p.Stderr(), "reload refused") })
	require.Contains(t, p.Stderr(), "walhook token create")
	require.Equal(t, http.StatusUnauthorized, r.as("", webhooks), "it answers as before")

	db.newToken("--name", "n")
	r.reload(`"changed":["listen"],"restarted":true`)
	r.terminate(soon)
}
