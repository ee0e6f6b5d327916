// Package acceptance_test runs the built walhook binary against real Postgres servers and real receivers, and
// breaks one of them: it reads as the list of what a user may rely on.
package acceptance_test

import (
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// soon bounds what should happen at once; it is generous because the machine may be busy.
const soon = 20 * time.Second

// database is a database with the schema, the slot of its relay, and a pool for the test's own questions.
type database struct {
	*pgxpool.Pool
	t    *testing.T
	url  string
	slot string
	cli  string // the walhook binary
}

// newDatabase makes a database of the shared cluster and sets it up with walhook init.
func newDatabase(t *testing.T) *database {
	t.Helper()
	return prepared(t, harness.Database(t))
}

// prepared sets a database up with walhook init, which makes whatever is missing.
func prepared(t *testing.T, url string) *database {
	t.Helper()
	// Slots belong to the whole server, so each database needs a name of its own.
	db := &database{t: t, url: url, slot: "walhook_" + uuid.NewString()[:8], cli: build(t)}
	code, out := db.walhook("init")
	require.Zero(t, code, out)
	db.Pool = harness.Connect(t, url)
	return db
}

// build builds walhook. It looks into the module's directories, because go test knows only what this process
// read: otherwise a result would stay cached although the program has changed.
func build(t *testing.T) string {
	t.Helper()
	require.NoError(t, filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && len(entry.Name()) > 2 && entry.Name()[0] == '.' {
			return fs.SkipDir // .git and the like
		}
		return err
	}))
	return harness.BuildWalhook(t)
}

// walhook runs a subcommand to its end and returns its exit code and what it wrote.
func (db *database) walhook(args ...string) (code int, output string) {
	db.t.Helper()
	p := harness.StartProcess(db.t, db.cli, db.env(), args...)
	code = p.Wait(soon)
	return code, p.Stdout() + p.Stderr()
}

// env is the environment of walhook's processes. A program built with -race sleeps a second before it
// exits, unless told otherwise.
func (db *database) env() []string {
	return []string{"DATABASE_URL=" + db.url, "WALHOOK_SLOT=" + db.slot, "WALHOOK_LISTEN=127.0.0.1:0", "GORACE=atexit_sleep_ms=0"}
}

// do runs a statement.
func (db *database) do(sql string, args ...any) {
	db.t.Helper()
	_, err := db.Exec(db.t.Context(), sql, args...)
	require.NoError(db.t, err, sql)
}

// ask reads one value.
func ask[T any](db *database, sql string, args ...any) T {
	db.t.Helper()
	var v T
	require.NoError(db.t, db.QueryRow(db.t.Context(), sql, args...).Scan(&v), sql)
	return v
}

// subscribe adds a subscription for all events. set is further columns and their SQL values in turn.
func (db *database) subscribe(url string, set ...string) uuid.UUID {
	db.t.Helper()
	columns, values := "name, url", "'test', $1"
	for i := 0; i+1 < len(set); i += 2 {
		columns += ", " + set[i]
		values += ", " + set[i+1]
	}
	return ask[uuid.UUID](db, "INSERT INTO outbox.subscriptions ("+columns+") VALUES ("+values+") RETURNING id", url)
}

// publish commits n events in one transaction.
func (db *database) publish(n int) {
	db.t.Helper()
	db.do(`INSERT INTO outbox.events (type, payload) SELECT 'test.event', jsonb_build_object('n', g) FROM generate_series(1, $1) AS g`, n)
}

// relay is walhook run as a process.
type relay struct {
	*harness.Process
	t   *testing.T
	url string // of health and metrics
}

// launch starts walhook run and does not wait for anything. When the test ends, the race detector must have
// found nothing: a relay that is killed has no exit code to tell it.
func (db *database) launch(args ...string) *harness.Process {
	db.t.Helper()
	p := harness.StartProcess(db.t, db.cli, db.env(), append([]string{"run"}, args...)...)
	db.t.Cleanup(func() {
		p.Kill()
		require.NotContains(db.t, p.Stderr(), "DATA RACE")
		require.NotContains(db.t, p.Stderr(), "panic:")
	})
	return p
}

// start starts walhook run and waits until it serves its health.
func (db *database) start(args ...string) *relay {
	db.t.Helper()
	p := db.launch(args...)
	var line struct{ Listen string }
	require.NoError(db.t, json.Unmarshal([]byte(p.WaitFor("walhook runs", soon)), &line))
	return &relay{Process: p, t: db.t, url: "http://" + line.Listen}
}

// terminate stops the relay in the ordinary way, which must succeed.
func (r *relay) terminate(within time.Duration) {
	r.t.Helper()
	r.Signal(syscall.SIGTERM)
	require.Zero(r.t, r.Wait(within), "exit code after SIGTERM")
}

// get returns a page of the relay's: its HTTP status and body. Status 0 means that nobody answered.
func (r *relay) get(path string) (int, string) {
	r.t.Helper()
	client := http.Client{Timeout: 5 * time.Second}
	defer client.CloseIdleConnections()
	response, err := client.Get(r.url + path)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	require.NoError(r.t, err)
	return response.StatusCode, string(body)
}

// waitReady waits until /readyz answers with the status and contains the text.
func (r *relay) waitReady(status int, text string) {
	r.t.Helper()
	harness.Eventually(r.t, soon, "/readyz is as expected: "+text, func() bool {
		got, body := r.get("/readyz")
		return got == status && strings.Contains(body, text)
	})
}
