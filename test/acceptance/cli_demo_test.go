package acceptance_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// demoEnd bounds a short demo with everything that it starts and removes.
const demoEnd = 2 * time.Minute

// demo starts walhook demo.
func demo(t *testing.T, args ...string) *harness.Process {
	t.Helper()
	p := harness.StartProcess(t, harness.BuildWalhook(t), []string{"GORACE=atexit_sleep_ms=0"}, append([]string{"demo"}, args...)...)
	t.Cleanup(func() { require.NotContains(t, p.Stderr(), "DATA RACE") })
	return p
}

var psqlURL = regexp.MustCompile(`psql "(postgres://[^"]+)"`)

// demoDatabase waits until the demo says where its Postgres is, and returns the URL with the directory of its data.
func demoDatabase(t *testing.T, p *harness.Process) (url, dir string) {
	t.Helper()
	match := psqlURL.FindStringSubmatch(p.WaitFor("psql", soon))
	require.NotNil(t, match)
	conn, err := pgx.Connect(t.Context(), match[1])
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	require.NoError(t, conn.QueryRow(t.Context(), "SHOW data_directory").Scan(&dir))
	return match[1], filepath.Dir(dir)
}

// gone requires that nothing is left of the demo's Postgres.
func gone(t *testing.T, url, dir string) {
	t.Helper()
	require.NoDirExists(t, dir)
	_, err := pgx.Connect(t.Context(), url)
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
}

func TestDemoSummary(t *testing.T) {
	p := demo(t, "--events", "300", "--json", "--listen", "127.0.0.1:0")
	require.Zero(t, p.Wait(demoEnd), p.Stderr())
	o := result{stdout: p.Stdout()}.object(t)
	require.Len(t, o, 8)
	n := func(name string) float64 {
		require.IsType(t, 0.0, o[name], name)
		return o[name].(float64)
	}
	require.InDelta(t, 300, n("events"), 0)
	require.Greater(t, n("deliveries"), n("events"), "several subscriptions match some events")
	require.InDelta(t, n("deliveries"), n("delivered"), 0)
	require.Positive(t, n("retried"), "one receiver fails now and then")
	require.Zero(t, n("dead"))
	require.Positive(t, n("seconds"))
	require.Positive(t, n("p50_ms"))
	require.GreaterOrEqual(t, n("p99_ms"), n("p50_ms"))
	require.Empty(t, p.Stderr(), "nothing to warn of")
}

func TestDemoTellsWhatHappensAndRemovesEverything(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:8080")
	if err == nil {
		defer func() { _ = taken.Close() }()
	} else {
		require.ErrorIs(t, err, syscall.EADDRINUSE) // somebody else has it: that will do as well
	}
	p := demo(t, "--rate", "200")
	url, dir := demoDatabase(t, p)
	for _, told := range []string{"created replication slot", "subscription cardiology", "127.0.0.1:8080 is taken", "rolled back on purpose",
		"rolled back to a savepoint", "committed one transaction of 300 events", "insurer is down: 500", "at attempt 2", "p99"} {
		p.WaitFor(told, demoEnd)
	}
	address := regexp.MustCompile(`curl (http://127\.0\.0\.1:\d+)/readyz`).FindStringSubmatch(p.Stdout())
	require.NotNil(t, address)
	r := &relay{Process: p, t: t, url: address[1]}
	r.waitReady(200, "running")
	_, metrics := r.get("/metrics")
	require.Contains(t, metrics, `walhook_deliveries_total{outcome="retried"}`)

	// The demo is to be looked at: psql finds everything, and events emitted as messages too.
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	harness.Eventually(t, soon, "four families of events, and emitted ones that were delivered", func() (both bool) {
		require.NoError(t, conn.QueryRow(t.Context(), `SELECT (SELECT count(DISTINCT split_part(type, '.', 1)) FROM outbox.events) >= 4
			AND EXISTS (SELECT FROM outbox.attempts a JOIN outbox.emitted_events e ON e.id = a.event_id)`).Scan(&both))
		return both
	})
	require.NoError(t, conn.Close(t.Context()))

	p.Signal(syscall.SIGINT)
	require.Zero(t, p.Wait(demoEnd), p.Stderr())
	require.Regexp(t, `\d+ events committed in .* became \d+ deliveries: \d+ delivered, \d+ of them after retries; 0 dead`, p.Stdout())
	gone(t, url, dir)
}

var demoLogin = regexp.MustCompile(`log in: +(http://127\.0\.0\.1:\d+)(/\S*)?/login#token=(whk_[A-Za-z0-9_-]{43})\n`)

// demoDashboard waits until the demo is ready, and returns where its dashboard and API are, under the prefix, and the token.
func demoDashboard(t *testing.T, p *harness.Process) (r *relay, prefix, token string) {
	t.Helper()
	p.WaitFor("Ctrl-C ends the demo", soon)
	match := demoLogin.FindStringSubmatch(p.Stdout())
	require.NotNil(t, match, p.Stdout())
	require.Contains(t, p.Stdout(), fmt.Sprintf("curl -H \"Authorization: Bearer %s\" %s%s/api/v1/webhooks/\n", match[3], match[1], match[2]))
	require.Contains(t, p.Stdout(), "dashboard: "+match[1]+match[2]+"/\n")
	return &relay{Process: p, t: t, url: match[1]}, match[2], match[3]
}

// visitor is a browser that is logged in.
func (r *relay) visitor(prefix, token string) *http.Client {
	r.t.Helper()
	jar, err := cookiejar.New(nil)
	require.NoError(r.t, err)
	v := &http.Client{Jar: jar, Timeout: soon}
	r.t.Cleanup(v.CloseIdleConnections)
	response, err := v.PostForm(r.url+prefix+"/login", url.Values{"token": {token}})
	require.NoError(r.t, err)
	require.NoError(r.t, response.Body.Close())
	require.Equal(r.t, prefix+"/", response.Request.URL.Path, "sent on to the first page")
	return v
}

// page returns a page of the dashboard.
func (r *relay) page(v *http.Client, path string) string {
	r.t.Helper()
	response, err := v.Get(r.url + path)
	require.NoError(r.t, err)
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	require.NoError(r.t, err)
	require.Equal(r.t, http.StatusOK, response.StatusCode, "%s: %.1000s", path, body)
	return string(body)
}

// The demo without an end has a dashboard where every page has something to show, whatever somebody does there.
func TestDemoHasADashboard(t *testing.T) {
	t.Parallel()
	p := demo(t, "--listen", "127.0.0.1:0", "--path-prefix", "/hooks", "--rate", "60")
	database, dir := demoDatabase(t, p)
	r, prefix, token := demoDashboard(t, p)
	require.Equal(t, "/hooks", prefix)
	r.waitReady(200, "running")
	require.Equal(t, http.StatusUnauthorized, r.as("", prefix+webhooks))
	v := r.visitor(prefix, token)

	api := &client{t: t, base: r.url + prefix + "/api/v1", token: token}
	named := map[string]object{}
	for _, w := range api.get("/webhooks/?limit=100").is(200).items() {
		named[w.text("name")] = w
		require.NotEmpty(t, w.text("description"))
	}
	require.Len(t, named, 10)
	require.Equal(t, false, named["school of nursing"].members["is_active"])
	require.Equal(t, "north", named["branch office"].text("tenant"))
	require.Equal(t, "[redacted]", named["cardiology"].members["headers"].(map[string]any)["Authorization"])
	harness.Eventually(t, soon, "the relay finds the filter that does not compile", func() bool {
		return api.get("/webhooks/"+named["pharmacy"].text("id")).is(200).object().text("status") == "invalid"
	})

	numbers := map[string]any{}
	for _, e := range api.get("/event-types?limit=100").is(200).items() {
		numbers[e.text("name")] = e.members["number"]
	}
	for i, name := range []string{"created", "changed", "deleted", "published", "unpublished"} {
		require.Equal(t, json.Number(fmt.Sprint(40+i)), numbers["object."+name], name)
	}

	broken := "/webhooks/" + named["laboratory"].text("id")
	harness.Eventually(t, demoEnd, "there are dead letters", func() bool { return api.get(broken+"/stats").is(200).object().number("dead") > 0 })
	harness.Eventually(t, demoEnd, "there is an alert", func() bool {
		return strings.Contains(p.Stderr(), `"alert":"consecutive_failures"`)
	})
	p.WaitFor("replayed: reception gets everything", demoEnd)
	for _, path := range []string{"/", "/webhooks", broken, "/webhooks/" + named["data warehouse"].text("id"), "/dead-letters", "/events", "/slot", "/event-types"} {
		page := r.page(v, prefix+path)
		require.Contains(t, page, "</html>", path)
		require.NotContains(t, page, "<script>alert", path)
	}

	require.Contains(t, r.page(v, prefix+"/dead-letters"), "laboratory")
	require.Contains(t, r.page(v, prefix+"/event-types"), "object.unpublished")

	// Whoever tries things out there spoils nothing.
	api.post("/webhooks/"+named["data warehouse"].text("id")+"/test", "{}").is(200)
	warned := api.post("/webhooks/events/trigger", `{"event_type": "patient.created", "event_data": {"name": "A guest"}}`).is(202).object()
	require.NotEmpty(t, warned.members["warnings"], "the schema of the type warns")
	api.post("/webhooks/events/trigger", `{"event_type": "payment.received", "event_data": {"amount": 1}}`).refused(422, "body.event_data")
	api.post("/webhooks/"+named["insurer"].text("id")+"/rotate-secret", `{"new_secret": "what the insurer does not know", "overlap": 0}`).is(200)
	p.WaitFor("insurer refuses a request with a wrong signature", demoEnd)

	p.Signal(syscall.SIGINT)
	require.Zero(t, p.Wait(demoEnd), p.Stderr())
	require.Contains(t, p.Stdout(), "0 dead")
	require.NotContains(t, p.Stderr(), token)
	gone(t, database, dir)
}

// timeout(1) signals the process and then its group: twice in a row.
func TestDemoRemovesEverythingAtASignalSentTwice(t *testing.T) {
	p := demo(t, "--events", "100000", "--rate", "50")
	url, dir := demoDatabase(t, p)
	p.WaitFor("events ", soon)
	p.Signal(syscall.SIGTERM)
	p.Signal(syscall.SIGTERM)
	require.Equal(t, 1, p.Wait(demoEnd), "it was told to publish more")
	require.Contains(t, p.Stderr(), "interrupted after")
	gone(t, url, dir)
}

func TestDemoInterruptedWhileItStarts(t *testing.T) {
	before := demoDirectories(t)
	p := demo(t)
	harness.Eventually(t, soon, "a directory for Postgres is made", func() bool { return len(newIn(demoDirectories(t), before)) > 0 })
	p.Signal(syscall.SIGINT)
	require.Zero(t, p.Wait(demoEnd), p.Stderr())
	for _, dir := range newIn(demoDirectories(t), before) {
		// Others run demos on this machine, too: what is left is theirs if somebody works in it.
		require.NotEmpty(t, processesOn(t, dir), "%s was left behind", dir)
	}
}

func demoDirectories(t *testing.T) map[string]bool {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), "walhook-pg-*"))
	require.NoError(t, err)
	all := map[string]bool{}
	for _, dir := range dirs {
		all[dir] = true
	}
	return all
}

func newIn(now, before map[string]bool) (added []string) {
	for dir := range now {
		if !before[dir] {
			added = append(added, dir)
		}
	}
	return added
}

// processesOn returns the command lines that name the directory.
func processesOn(t *testing.T, dir string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "pgrep", "-af", dir+"/").CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return "" // none
	}
	require.NoError(t, err, string(out))
	return string(out)
}

func TestDemoAddressTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = taken.Close() }()
	r := run(t, nil, "demo", "--listen", taken.Addr().String())
	require.Equal(t, 1, r.code)
	require.Contains(t, r.stderr, taken.Addr().String())
	require.Contains(t, r.stderr, "address already in use")
	_, err = pgx.Connect(t.Context(), psqlURL.FindStringSubmatch(r.stdout)[1])
	require.ErrorIs(t, err, syscall.ECONNREFUSED, "its Postgres is gone")
}

// Nothing needs to be configured, and what is configured for a real relay is left alone.
func TestDemoIgnoresTheRealDatabase(t *testing.T) {
	p := harness.StartProcess(t, harness.BuildWalhook(t), []string{"DATABASE_URL=postgres://127.0.0.1:1/production", "WALHOOK_SLOT=production",
		"WALHOOK_LISTEN=127.0.0.1:0", "WALHOOK_EVENTS=5", "WALHOOK_JSON=true"}, "demo")
	require.Zero(t, p.Wait(demoEnd), p.Stderr())
	require.Contains(t, p.Stdout(), `"events": 5`)
}

func TestDemoWithoutPostgresSaysWhatToInstall(t *testing.T) {
	empty := t.TempDir()
	r := run(t, []string{"PG_BIN=" + empty}, "demo", "--events", "1")
	require.Equal(t, 1, r.code)
	require.Contains(t, r.stderr, fmt.Sprintf("PG_BIN=%q", empty))
}
