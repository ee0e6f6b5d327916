package monitoring_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"math"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// relay is a walhook that runs, with its database and a receiver.
type relay struct {
	*harness.Process
	*pgxpool.Pool
	receiver *harness.Collector
	address  string // of health and metrics
}

// startRelay runs walhook until the test ends. Requests to /fails are answered 500.
func startRelay(t *testing.T, set ...string) relay {
	t.Helper()
	// go test takes a result for current unless something changed that this process has looked at.
	require.NoError(t, filepath.WalkDir("../..", func(_ string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && len(entry.Name()) > 2 && entry.Name()[0] == '.' {
			return fs.SkipDir
		}
		return err
	}))
	walhook, database := harness.BuildWalhook(t), harness.Database(t)
	env := append([]string{"DATABASE_URL=" + database, "WALHOOK_SLOT=walhook_" + uuid.NewString()[:8], "WALHOOK_LISTEN=127.0.0.1:0",
		"GORACE=atexit_sleep_ms=0", "WALHOOK_REPLICATION_WAL_DISK_SIZE=1024GiB"}, set...)
	initialised := harness.StartProcess(t, walhook, env, "init")
	require.Zero(t, initialised.Wait(soon), initialised.Stderr())
	r := relay{Process: harness.StartProcess(t, walhook, env, "run"), Pool: harness.Connect(t, database), receiver: harness.NewCollector(t)}
	t.Cleanup(func() {
		r.Kill()
		require.NotContains(t, r.Stderr(), "DATA RACE")
		require.NotContains(t, r.Stderr(), "panic:")
	})
	var line struct{ Listen string }
	require.NoError(t, json.Unmarshal([]byte(r.WaitFor("walhook runs", soon)), &line))
	r.address = line.Listen
	r.receiver.Answer(func(r harness.Request) harness.Response {
		if r.Path == "/fails" {
			return harness.Response{Status: 500}
		}
		return harness.Response{}
	})
	return r
}

func (r relay) do(t *testing.T, sql string, args ...any) {
	t.Helper()
	_, err := r.Exec(t.Context(), sql, args...)
	require.NoError(t, err, sql)
}

// deliver has ten deliveries succeed, and ten fail, be retried and given up.
func (r relay) deliver(t *testing.T) {
	t.Helper()
	r.do(t, `INSERT INTO outbox.subscriptions (name, url, max_retries, retry_delay)
		VALUES ('well', $1, 0, '0'), ('fails', $1 || '/fails', 1, '1 ms')`, r.receiver.URL())
	r.do(t, "SELECT outbox.publish('x', '{}') FROM generate_series(1, 10)")
	harness.Eventually(t, soon, "everything has its outcome", func() bool {
		var dead, delivered int
		require.NoError(t, r.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM outbox.dead_letters),
			(SELECT count(*) FROM outbox.attempts WHERE error IS NULL)`).Scan(&dead, &delivered))
		return dead == 10 && delivered == 10
	})
}

// Every metric that a rule or the dashboard names exists, and the dashboard shows whatever the relay exports.
func TestNamedMetricsExist(t *testing.T) {
	t.Parallel()
	r := startRelay(t)
	r.deliver(t)
	var exported map[string]bool
	harness.Eventually(t, soon, "the forecast has something to compare with", func() bool {
		exported = map[string]bool{}
		for _, name := range regexp.MustCompile(`(?m)^[a-z0-9_]+`).FindAllString(get(t, "http://"+r.address+"/metrics"), -1) {
			exported[name] = true
		}
		return exported["walhook_wal_bytes_per_second"]
	})
	dashboard := namesIn(text(t, dashboardFile))
	for name := range dashboard {
		require.True(t, exported[name], "%s of the dashboard", name)
	}
	for name := range namesIn(text(t, rulesFile)) {
		require.True(t, exported[name], "%s of a rule", name)
	}
	histogram := regexp.MustCompile(`_(bucket|sum|count)$`)
	shown := map[string]bool{}
	for name := range dashboard {
		shown[histogram.ReplaceAllString(name, "")] = true
	}
	for name := range exported {
		if strings.HasPrefix(name, "walhook_") {
			require.True(t, shown[histogram.ReplaceAllString(name, "")], "%s is on the dashboard", name)
		}
	}
}

// startPrometheus scrapes a relay and evaluates the rules. It returns the address of its API.
func startPrometheus(t *testing.T, target string) string {
	t.Helper()
	rules, err := filepath.Abs(rulesFile)
	require.NoError(t, err)
	settings := write(t, "prometheus.yml", fmt.Sprintf(`global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs: [{job_name: walhook, static_configs: [{targets: [%q]}]}]
`, rules, target))
	server := harness.StartProcess(t, tool(t, "prometheus"), nil, "--config.file="+settings, "--storage.tsdb.path="+t.TempDir(),
		"--web.listen-address=127.0.0.1:0", "--log.format=json")
	var line struct{ Address string }
	require.NoError(t, json.Unmarshal([]byte(server.WaitFor(`"Listening on"`, soon)), &line))
	server.WaitFor("Server is ready to receive web requests", soon)
	return "http://" + line.Address
}

// ask evaluates a query now and returns the values of what there is; an error is one of the query.
func ask(t *testing.T, prometheus, expr string) []float64 {
	t.Helper()
	var answer struct {
		Status string
		Data   struct {
			Result []struct{ Value [2]any }
		}
	}
	require.NoError(t, json.Unmarshal([]byte(get(t, prometheus+"/api/v1/query?query="+url.QueryEscape(expr))), &answer))
	require.Equal(t, "success", answer.Status, expr)
	values := make([]float64, len(answer.Data.Result))
	for i, r := range answer.Data.Result {
		var err error
		values[i], err = strconv.ParseFloat(r.Value[1].(string), 64)
		require.NoError(t, err)
	}
	return values
}

// What Grafana asks is asked of a Prometheus that scrapes a relay: every query of the dashboard answers with numbers.
func TestDashboardShowsSomething(t *testing.T) {
	t.Parallel()
	tool(t, "prometheus") // before anything is started
	r := startRelay(t)
	prometheus := startPrometheus(t, r.address)
	// A rate needs a sample from before.
	harness.Eventually(t, soon, "the relay is scraped", func() bool { return slices.Contains(ask(t, prometheus, "walhook_events_total"), 0) })
	r.deliver(t)
	for _, q := range readDashboard(t).queries() {
		harness.Eventually(t, soon, "there is data for "+q.panel+": "+q.expr, func() bool {
			values := ask(t, prometheus, q.expr)
			return len(values) > 0 && !slices.ContainsFunc(values, math.IsNaN)
		})
	}
	require.Equal(t, []float64{1}, ask(t, prometheus, `up{job="walhook"}`))
}

// The rules that Prometheus has loaded all evaluate, and of a relay that does its work none says that it does not.
func TestRulesOverARelay(t *testing.T) {
	t.Parallel()
	tool(t, "prometheus")
	prometheus := startPrometheus(t, startRelay(t).address)
	var loaded struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, State, Health, LastError string }
			}
		}
	}
	harness.Eventually(t, soon, "the relay is scraped, and every rule was evaluated", func() bool {
		require.NoError(t, json.Unmarshal([]byte(get(t, prometheus+"/api/v1/rules")), &loaded))
		done := len(ask(t, prometheus, "walhook_relay_state")) > 0
		for _, g := range loaded.Data.Groups {
			for _, r := range g.Rules {
				done = done && r.Health != "unknown" && (r.Name != "WalhookAbsent" || r.State == "inactive")
			}
		}
		return done
	})
	require.NotEmpty(t, loaded.Data.Groups)
	for _, g := range loaded.Data.Groups {
		for _, r := range g.Rules {
			require.Equal(t, "ok", r.Health, "%s: %s", r.Name, r.LastError)
			require.NotEqual(t, "firing", r.State, r.Name)
		}
	}
}
