package faults_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// as makes the database's walhook connect as another role.
func (db *database) as(role, password string) {
	db.url = strings.Replace(db.url, "//postgres@", "//"+role+":"+password+"@", 1)
}

// limits are settings with which no session gets far, by the version that brought them.
var limits = map[string]int{
	"statement_timeout": 0, "lock_timeout": 0, "idle_in_transaction_session_timeout": 0, "idle_session_timeout": 0, "transaction_timeout": 17,
}

// Somebody has limited what the role's sessions may do. The relay's own sessions do without such limits.
func TestTimeoutsOfTheRole(t *testing.T) {
	t.Parallel()
	_, db := ownServer(t, nil)
	db.do("CREATE ROLE limited SUPERUSER LOGIN")
	for name, since := range limits {
		if harness.Postgres(t).Version() >= since {
			db.do("ALTER ROLE limited SET " + name + " = '2ms'")
		}
	}
	db.as("limited", "none")
	r := db.running()
	failing := harness.NewCollector(t)
	failing.Script(harness.Response{Status: 500})
	db.subscribe(failing, "retry_delay", "'300 ms'")
	db.publish(1)
	failing.Wait(2, soon)
	for range 5 {
		db.publish(200)
	}
	db.everythingArrives()
	r.waitState("running")
	require.NotContains(t, r.Stderr(), "57014", "canceled statements") // query_canceled
	require.NotContains(t, r.Stderr(), "timeout\"")
	r.terminate()
}

// The database is set to lose its last commits in a crash. The relay's records are not among them: what it has
// confirmed stays recorded, and is not sent again.
func TestAsynchronousCommitOfTheRole(t *testing.T) {
	t.Parallel()
	server, db := ownServer(t, map[string]string{"wal_writer_delay": "10s", "wal_writer_flush_after": "1GB"})
	db.do("CREATE ROLE careless SUPERUSER LOGIN", "ALTER ROLE careless SET synchronous_commit = off")
	db.as("careless", "none")
	r := db.running("--replication-heartbeat", "0s")
	db.publish(20)
	db.everythingArrives()
	require.NoError(t, server.Stop("immediate"))
	r.Kill()
	require.NoError(t, server.Restart(t.Context()))
	db.Reset()
	require.Equal(t, 20, ask[int](db, "SELECT count(*) FROM outbox.attempts"))
	r = db.running()
	db.publish(1)
	db.everythingArrives()
	require.Equal(t, 21, db.receiver.Count(), "requests")
	r.terminate()
}

// Others take all the places for replication while the relay's connection is broken. It says so, and comes back when one
// is free.
func TestNoPlaceForReplication(t *testing.T) {
	t.Parallel()
	_, db := ownServer(t, map[string]string{"max_wal_senders": "1"})
	r := db.running()
	db.publish(1)
	db.everythingArrives()
	var other *pgconn.PgConn
	harness.Eventually(t, soon, "somebody else has the only place", func() bool {
		db.do("SELECT pg_terminate_backend(pid) FROM pg_stat_replication")
		var err error
		other, err = pgconn.Connect(t.Context(), db.url+"&replication=database")
		return err == nil
	})
	db.publish(2)
	harness.Eventually(t, soon, "the relay says what is used up", func() bool {
		h := r.health()
		return h.Status == 503 && strings.Contains(h.Error, "max_wal_senders")
	})
	require.NoError(t, other.Close(t.Context()))
	db.everythingArrives()
	r.waitState("running")
	r.terminate()
}

// The password of the relay's role is rotated: it learns the new one by SIGHUP, and loses nothing.
func TestRotatedPassword(t *testing.T) {
	t.Parallel()
	server, db := ownServer(t, nil)
	db.do("CREATE ROLE relay SUPERUSER LOGIN PASSWORD 'first'")
	hba := filepath.Join(server.DataDir(), "pg_hba.conf")
	rules, err := os.ReadFile(hba)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(hba, append([]byte("host all relay 127.0.0.1/32 scram-sha-256\n"), rules...), 0o600))
	db.do("SELECT pg_reload_conf()")
	file := filepath.Join(t.TempDir(), "walhook.yaml")
	configure := func(password string) {
		url := strings.Replace(db.url, "//postgres@", "//relay:"+password+"@", 1)
		require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, "database_url: %q\n", url), 0o600))
	}
	harness.Eventually(t, soon, "a password is required", func() bool {
		conn, err := pgx.Connect(t.Context(), strings.Replace(db.url, "//postgres@", "//relay:wrong@", 1))
		if err == nil {
			_ = conn.Close(context.Background())
		}
		return err != nil
	})
	configure("first")
	r := db.runningOn(file)
	db.publish(3)
	db.everythingArrives()

	db.do("ALTER ROLE relay PASSWORD 'second'")
	configure("second")
	r.Signal(syscall.SIGHUP)
	r.WaitFor("reloaded", soon)
	db.publish(3)
	db.do("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'relay'")
	db.publish(3)
	db.everythingArrives()
	r.waitState("running")
	require.NotContains(t, r.Stderr(), "second")
	r.terminate()
}
