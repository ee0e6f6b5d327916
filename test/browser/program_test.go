package browser_test

import (
	"encoding/json"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// token opens everything: it is the one of the configuration.
const token = "a-token-of-the-configuration"

// program is walhook run with a database of its own.
type program struct {
	*pgxpool.Pool
	*harness.Process
	t   *testing.T
	cli string
	env []string
	url string // of the dashboard, without a slash at its end
}

// startProgram makes a database, sets it up and starts walhook run, with more of an environment.
func startProgram(t *testing.T, env ...string) *program {
	t.Helper()
	url := harness.Database(t)
	p := &program{t: t, cli: build(t), env: []string{
		"DATABASE_URL=" + url, "WALHOOK_SLOT=walhook_" + uuid.NewString()[:8], "WALHOOK_LISTEN=127.0.0.1:0",
		"WALHOOK_API_TOKEN=" + token, "GORACE=atexit_sleep_ms=0",
	}}
	p.env = append(p.env, env...)
	set := harness.StartProcess(t, p.cli, p.env, "init")
	require.Zero(t, set.Wait(soon), set.Stderr())
	p.Pool = harness.Connect(t, url)
	p.start()
	return p
}

// build builds walhook. It looks into the module's directories, because go test knows only what this process read:
// otherwise a result would stay cached although the program has changed.
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

// host is where it listens.
func (p *program) host() string {
	host, _, _ := strings.Cut(strings.TrimPrefix(p.url, "http://"), "/")
	return host
}

func (p *program) start() {
	p.t.Helper()
	p.Process = harness.StartProcess(p.t, p.cli, p.env, "run")
	var line struct{ Listen string }
	require.NoError(p.t, json.Unmarshal([]byte(p.WaitFor("walhook runs", soon)), &line))
	p.url = "http://" + line.Listen
}

// do runs a statement.
func (p *program) do(sql string, args ...any) {
	p.t.Helper()
	_, err := p.Exec(p.t.Context(), sql, args...)
	require.NoError(p.t, err, sql)
}

// ask reads one value.
func ask[T any](p *program, sql string, args ...any) T {
	p.t.Helper()
	var v T
	require.NoError(p.t, p.QueryRow(p.t.Context(), sql, args...).Scan(&v), sql)
	return v
}

// holds waits until a query says true.
func (p *program) holds(what, sql string, args ...any) {
	p.t.Helper()
	harness.Eventually(p.t, soon, what, func() bool { return ask[bool](p, sql, args...) })
}

// subscribe adds a webhook for all events. set is further columns and their SQL values in turn.
func (p *program) subscribe(name, url string, set ...string) string {
	p.t.Helper()
	columns, values := "name, url", "$1, $2"
	for i := 0; i+1 < len(set); i += 2 {
		columns += ", " + set[i]
		values += ", " + set[i+1]
	}
	return ask[uuid.UUID](p, "INSERT INTO outbox.subscriptions ("+columns+") VALUES ("+values+") RETURNING id", name, url).String()
}

// publish commits an event and returns its id.
func (p *program) publish(eventType, payload string) string {
	p.t.Helper()
	return ask[uuid.UUID](p, "SELECT outbox.publish($1, $2::jsonb)", eventType, payload).String()
}

// failing answers 500 to everything.
func failing(harness.Request) harness.Response {
	return harness.Response{Status: 500, Body: []byte("out of order")}
}
