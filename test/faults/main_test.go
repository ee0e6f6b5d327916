package faults_test

import (
	"encoding/json"
	"flag"
	"io/fs"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/cmd/localpg"
	"github.com/walhook/walhook/test/harness"
)

// TestMain lets more tests run at a time than there are processors: they mostly wait for the relay's next look.
func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "8") // before the command line is read, which wins
	harness.Main(m)
}

// soon bounds what should happen at once; it is generous because the machine may be busy.
const soon = 30 * time.Second

// database is a database that walhook init has set up, one subscription with its receiver, and what was published.
type database struct {
	*pgxpool.Pool
	t            *testing.T
	url          string
	slot         string
	cli          string // the walhook binary
	subscription uuid.UUID
	receiver     *harness.Collector

	last      int          // number of the last event
	committed map[int]bool // numbers of the events that must arrive
}

// newDatabase makes a database of the shared cluster.
func newDatabase(t *testing.T) *database {
	t.Helper()
	return prepared(t, harness.Database(t))
}

// ownServer makes a server that belongs to the test alone, and prepares its database.
func ownServer(t *testing.T, settings map[string]string) (*localpg.Server, *database) {
	t.Helper()
	server := harness.StartServer(t, "", settings)
	return server, prepared(t, server.URL("postgres"))
}

// prepared runs walhook init and subscribes.
func prepared(t *testing.T, url string) *database {
	t.Helper()
	// Slots belong to the whole server, so each database needs a name of its own.
	db := &database{t: t, url: url, slot: "walhook_" + uuid.NewString()[:8], cli: build(t), committed: map[int]bool{}}
	code, output := db.walhook("init")
	require.Zero(t, code, output)
	db.Pool = harness.Connect(t, url)
	db.receiver = harness.NewCollector(t)
	db.subscription = db.subscribe(db.receiver)
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

// env is the environment of walhook's processes. A program built with -race sleeps a second before it exits, unless
// told otherwise.
func (db *database) env() []string {
	return []string{"DATABASE_URL=" + db.url, "WALHOOK_SLOT=" + db.slot, "WALHOOK_LISTEN=127.0.0.1:0",
		"WALHOOK_QUEUE_POLL_INTERVAL=200ms", "GORACE=atexit_sleep_ms=0"}
}

// walhook runs a subcommand to its end and returns its exit code and what it wrote.
func (db *database) walhook(args ...string) (code int, output string) {
	db.t.Helper()
	p := harness.StartProcess(db.t, db.cli, db.env(), args...)
	code = p.Wait(soon)
	return code, p.Stdout() + p.Stderr()
}

// do runs statements one after the other.
func (db *database) do(statements ...string) {
	db.t.Helper()
	for _, sql := range statements {
		_, err := db.Exec(db.t.Context(), sql)
		require.NoError(db.t, err, sql)
	}
}

// ask reads one value.
func ask[T any](db *database, sql string, args ...any) T {
	db.t.Helper()
	var v T
	require.NoError(db.t, db.QueryRow(db.t.Context(), sql, args...).Scan(&v), sql)
	return v
}

// answers reports whether a condition in SQL holds. While the server is away it does not.
func (db *database) answers(sql string, args ...any) bool {
	var yes *bool
	err := db.QueryRow(db.t.Context(), sql, args...).Scan(&yes)
	return err == nil && yes != nil && *yes
}

// subscribe adds a subscription for all events. set is further columns and their SQL values in turn.
func (db *database) subscribe(receiver *harness.Collector, set ...string) uuid.UUID {
	db.t.Helper()
	columns, values := "name, url, payload_format", "'test', $1, 'raw'"
	for i := 0; i+1 < len(set); i += 2 {
		columns += ", " + set[i]
		values += ", " + set[i+1]
	}
	return ask[uuid.UUID](db, "INSERT INTO outbox.subscriptions ("+columns+") VALUES ("+values+") RETURNING id", receiver.URL())
}

// number reads the number of the event that a request brings.
func number(t testing.TB, r harness.Request) int {
	t.Helper()
	var payload struct{ N int }
	require.NoError(t, json.Unmarshal(r.Body, &payload), "%.300s", r.Body)
	return payload.N
}
