package faults_test

import (
	"bytes"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/sql"
	"github.com/walhook/walhook/test/harness"
)

// A dump of the database is restored into another cluster, as for a staging environment, with its due deliveries and
// even a slot of the same name. Its relay refuses and sends nothing of what the original sends.
//
// A copy of the data directory has the same system identifier and cannot be told from the original by anything.
func TestCopyInAnotherClusterIsRefused(t *testing.T) {
	t.Parallel()
	original := newDatabase(t)
	original.receiver.Answer(func(harness.Request) harness.Response { return harness.Response{Status: 500} })
	r := original.running()
	original.publish(2)
	original.receiver.Wait(2, soon)
	harness.Eventually(t, soon, "the failed deliveries are in the queue", func() bool {
		return original.answers("SELECT count(*) = 2 FROM outbox.deliveries")
	})
	r.terminate()
	original.do("UPDATE outbox.deliveries SET next_attempt_at = now()")
	original.publish(2)
	original.receiver.Answer(nil)
	sent := original.receiver.Count()

	for _, policy := range []string{"recover", "halt"} {
		restored := original.restore(t, harness.StartServer(t, "", nil).URL("postgres"))
		code, output := restored.walhook("run", "--on-lost-slot", policy)
		require.Equal(t, 2, code, output)
		for _, text := range []string{"a copy must not send", ask[string](restored, "SELECT system_identifier FROM outbox.checkpoint"),
			ask[string](restored, "SELECT system_identifier::text FROM pg_control_system()"), "outbox.checkpoint"} {
			require.Contains(t, output, text)
		}
		require.Equal(t, 2, ask[int](restored, "SELECT count(*) FROM outbox.deliveries"))
		code, output = restored.walhook("doctor", "--json")
		require.Equal(t, 3, code, output)
		require.Contains(t, output, `"clone"`)
	}
	require.Equal(t, sent, original.receiver.Count(), "requests sent by a copy")

	// The original goes on.
	r = original.start()
	original.everythingArrives()
	r.terminate()
}

// restored are the tables that a copy of the schema needs, in an order without consequences.
var restored = []string{"subscriptions", "subscription_revisions", "checkpoint", "epochs", "routing", "deliveries", "events"}

// restore copies the schema's rows into the database at url, which gets publications and a slot of the same names too.
func (db *database) restore(t *testing.T, url string) *database {
	t.Helper()
	copied := &database{t: t, url: url, slot: db.slot, cli: db.cli}
	_, err := sql.Migrate(t.Context(), url)
	require.NoError(t, err)
	copied.Pool = harness.Connect(t, url)
	from, err := pgx.Connect(t.Context(), db.url)
	require.NoError(t, err)
	defer func() { _ = from.Close(t.Context()) }()
	to, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer func() { _ = to.Close(t.Context()) }()
	_, err = to.Exec(t.Context(), "SET session_replication_role = 'replica'") // no triggers, as a restore has none yet
	require.NoError(t, err)
	for _, table := range restored {
		var rows bytes.Buffer
		_, err := from.PgConn().CopyTo(t.Context(), &rows, "COPY (SELECT * FROM outbox."+table+") TO STDOUT")
		require.NoError(t, err, table)
		_, err = to.PgConn().CopyFrom(t.Context(), &rows, "COPY outbox."+table+" FROM STDIN")
		require.NoError(t, err, table)
	}
	copied.do("CREATE PUBLICATION walhook_events FOR TABLE outbox.events WITH (publish = 'insert', publish_via_partition_root = true)",
		"CREATE PUBLICATION walhook_config FOR TABLE outbox.subscriptions WITH (publish = 'insert, update, delete', publish_via_partition_root = true)",
		"SELECT pg_create_logical_replication_slot('"+db.slot+"', 'pgoutput')")
	return copied
}
