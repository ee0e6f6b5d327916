package acceptance_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// A relay that is started before its Postgres waits for it, and says so where it is asked.
func TestRunWaitsForPostgres(t *testing.T) {
	t.Parallel()
	server := harness.StartServer(t, "", nil)
	db := prepared(t, server.URL("postgres"))
	receiver := harness.NewCollector(t)
	id := db.subscribe(receiver.URL(), "payload_format", "'raw'")
	db.publish(3)
	require.NoError(t, server.Stop("fast"))

	r := db.start()
	r.waitReady(503, `"state":"starting"`)
	_, body := r.get("/readyz")
	require.Contains(t, body, "connect to Postgres")
	status, _ := r.get("/healthz")
	require.Equal(t, 200, status)
	status, metrics := r.get("/metrics")
	require.Equal(t, 200, status)
	require.Contains(t, metrics, "walhook_events_total 0")

	require.NoError(t, server.Restart(t.Context()))
	db.Reset()
	r.waitReady(200, "running")
	receiver.Wait(3, soon) // on loopback, which is allowed because the database turned out to be there
	db.settled(soon)
	r.terminate(soon)
	require.Zero(t, db.verify(id, receiver))
}

// While it waits it can be stopped, and told another address.
func TestRunThatWaitsForPostgresCanBeStoppedAndReloaded(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	file := filepath.Join(t.TempDir(), "walhook.yaml")
	write := func(url string) {
		text, err := json.Marshal(map[string]string{"database_url": url}) // JSON is YAML
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(file, text, 0o600))
	}
	write("postgres://postgres:hidden@127.0.0.1:1/none")
	env := []string{"WALHOOK_SLOT=" + db.slot, "WALHOOK_LISTEN=127.0.0.1:0", "GORACE=atexit_sleep_ms=0"}
	start := func() *harness.Process {
		p := harness.StartProcess(t, db.cli, env, "run", "--config", file)
		p.WaitFor("the database cannot be used yet", soon)
		return p
	}
	p := start()
	p.Signal(syscall.SIGTERM)
	require.Zero(t, p.Wait(soon), p.Stderr())
	require.NotContains(t, p.Stderr(), "hidden")

	p = start()
	var line struct{ Listen string }
	require.NoError(t, json.Unmarshal([]byte(p.WaitFor("walhook runs", soon)), &line))
	r := &relay{Process: p, t: t, url: "http://" + line.Listen}
	r.waitReady(503, "127.0.0.1:1")
	write(db.url)
	p.Signal(syscall.SIGHUP)
	r.waitReady(200, "running")
	r.terminate(soon)
}
