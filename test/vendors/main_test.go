// Package vendors_test lets the built walhook deliver to receivers that verify with the vendors' own packages,
// which run in one Node process. What they refuse, a user's receiver would refuse.
//
// It needs Node 20 or later with npm, and a registry for the first run; without them TestVendors is skipped, or
// fails where WALHOOK_TEST_VENDORS is "required".
package vendors_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// soon bounds what should happen at once; it is generous because the machine may be busy.
const soon = 30 * time.Second

// database is where events are published; a relay serves it.
type database struct{ *pgxpool.Pool }

// start makes a database and runs walhook on it until the test ends.
func start(t *testing.T) database {
	t.Helper()
	// go test takes a result for current unless something changed that this process has looked at, and walhook
	// is built of other directories than this one.
	require.NoError(t, filepath.WalkDir("../..", func(_ string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && len(entry.Name()) > 2 && entry.Name()[0] == '.' {
			return fs.SkipDir
		}
		return err
	}))
	walhook, url := harness.BuildWalhook(t), harness.Database(t)
	env := []string{"DATABASE_URL=" + url, "WALHOOK_SLOT=walhook_" + uuid.NewString()[:8], "WALHOOK_LISTEN=127.0.0.1:0", "GORACE=atexit_sleep_ms=0"}
	initialised := harness.StartProcess(t, walhook, env, "init")
	require.Zero(t, initialised.Wait(soon), initialised.Stderr())
	relay := harness.StartProcess(t, walhook, env, "run")
	t.Cleanup(func() {
		relay.Kill()
		require.NotContains(t, relay.Stderr(), "DATA RACE")
		require.NotContains(t, relay.Stderr(), "panic:")
	})
	relay.WaitFor("walhook runs", soon)
	return database{harness.Connect(t, url)}
}

// columns of a subscription and their values, which may be Go values or raw SQL.
type columns map[string]any

// subscribe adds a subscription to events of one type. A refused attempt is repeated soon.
func (db database) subscribe(t *testing.T, url, eventType string, set columns) uuid.UUID {
	t.Helper()
	names, places, values := "name, url, event_types, retry_delay", "$1, $1, ARRAY[$2], '50 ms'", []any{url, eventType}
	for name, value := range set {
		values = append(values, value)
		names += ", " + name
		places += fmt.Sprintf(", $%d", len(values))
	}
	var id uuid.UUID
	err := db.QueryRow(t.Context(), "INSERT INTO outbox.subscriptions ("+names+") VALUES ("+places+") RETURNING id", values...).Scan(&id)
	require.NoError(t, err)
	return id
}

// publish commits an event.
func (db database) publish(t *testing.T, eventType, payload string) {
	t.Helper()
	_, err := db.Exec(t.Context(), "SELECT outbox.publish($1, $2)", eventType, payload)
	require.NoError(t, err)
}

// The payload is one of Slack's events, so that an app of theirs takes it, and has what is easily spoilt on the way.
const (
	umlauts = "Grüße aus Zürich, 日本 😀 <&> \u2028"
	digits  = "12345678901234567890.123456789012345678900"
)

func payload(padding string) string {
	text, _ := json.Marshal(umlauts + padding) // escapes what HTML does not like: Postgres writes it plainly again
	return `{"type": "event_callback", "amount": ` + digits + `, "event": {"type": "app_mention", "text": ` + string(text) + `}}`
}
