package relay_test

import (
	"context"
	"encoding/json"
	"net"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/cmd/localpg"
	"github.com/walhook/walhook/sql"
	"github.com/walhook/walhook/test/harness"
)

// soon is how long a test waits for what must happen: long, because it is waited for only when it does not.
const soon = 30 * time.Second

// envelope is the body of a request.
type envelope struct {
	EventType string          `json:"event_type"`
	EventData json.RawMessage `json:"event_data"`
	WebhookID string          `json:"webhook_id"`
	Timestamp string          `json:"timestamp"`
	Attempt   int             `json:"attempt"`
}

// read decodes a request's body.
func read(t *testing.T, r harness.Request) envelope {
	t.Helper()
	var e envelope
	require.NoError(t, json.Unmarshal(r.Body, &e), "%.300s", r.Body)
	return e
}

// types lists the event types of requests, in order of arrival.
func types(requests []harness.Request) []string {
	names := []string{}
	for _, r := range requests {
		names = append(names, r.Header.Get("X-Webhook-Event"))
	}
	return names
}

// attempts lists the attempt numbers of requests, in order of arrival.
func attempts(requests []harness.Request) []string {
	numbers := []string{}
	for _, r := range requests {
		numbers = append(numbers, r.Header.Get("X-Webhook-Attempt"))
	}
	return numbers
}

// recorded waits until everything that was committed before the call is recorded: each delivery of it has
// ended or stands in the queue. What has not been sent by then and is not in the queue never will be, so
// that no test has to wait for something that must not happen. It publishes an event that nobody gets,
// because positions become known only as transactions end.
func recorded(t testing.TB, db *pgxpool.Pool) {
	t.Helper()
	committed := value[string](t, db, "SELECT pg_current_wal_lsn()::text")
	exec(t, db, "SELECT outbox.publish('marker', '{}', tenant => 'nobody subscribes here')")
	harness.Eventually(t, soon, "everything committed is recorded", func() bool {
		return value[bool](t, db, "SELECT confirmed_lsn >= $1::text::pg_lsn FROM outbox.checkpoint", committed)
	})
}

// settled waits until everything that was committed before the call has been delivered or is a dead letter.
func settled(t *testing.T, db *pgxpool.Pool) {
	t.Helper()
	recorded(t, db)
	harness.Eventually(t, 2*soon, "the queue is empty", func() bool {
		return value[int](t, db, "SELECT count(*) FROM outbox.deliveries") == 0
	})
}

// session opens a connection of the test's own, for transactions over several statements.
func session(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// run executes statements one after the other on a connection.
func run(t *testing.T, conn *pgx.Conn, statements ...string) {
	t.Helper()
	for _, s := range statements {
		_, err := conn.Exec(t.Context(), s)
		require.NoError(t, err, s)
	}
}

// call is a row of the calls log.
type call struct {
	DeliveryID string
	Attempt    int
	Status     *int
	Error      *string
	Body       *string
}

// calls reads the log of a subscription's attempts.
func calls(t *testing.T, db *pgxpool.Pool, subscription uuid.UUID) []call {
	t.Helper()
	rows, err := db.Query(t.Context(), `SELECT delivery_id::text, attempt, status, error, response_body AS body
		FROM outbox.calls WHERE subscription_id = $1 ORDER BY attempted_at, attempt`, subscription)
	require.NoError(t, err)
	all, err := pgx.CollectRows(rows, pgx.RowToStructByName[call])
	require.NoError(t, err)
	return all
}

// statuses lists what the calls log says was answered; 0 where nothing was.
func statuses(all []call) []int {
	list := []int{}
	for _, c := range all {
		if c.Status == nil {
			list = append(list, 0)
		} else {
			list = append(list, *c.Status)
		}
	}
	return list
}

// refusing returns an address on which connections are refused, until somebody listens there.
func refusing(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	return l.Addr().String()
}

// ownServer starts a Postgres server with the schema that belongs to the test alone, and returns the URL of
// its database and a pool.
func ownServer(t *testing.T, settings map[string]string) (*localpg.Server, string, *pgxpool.Pool) {
	t.Helper()
	server := harness.StartServer(t, "", settings)
	url := server.URL("postgres")
	_, err := sql.Migrate(t.Context(), url)
	require.NoError(t, err)
	return server, url, harness.Connect(t, url)
}
