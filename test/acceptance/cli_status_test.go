package acceptance_test

import (
	"encoding/json"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// statusObject is what status --json prints, as an operator's script reads it.
type statusObject struct {
	Lag struct {
		SlotName      string `json:"slot_name"`
		Active        bool   `json:"active"`
		LagBytes      *int64 `json:"lag_bytes"`
		RetainedBytes *int64 `json:"retained_bytes"`
		CheckpointLSN string `json:"checkpoint_lsn"`
		ConfirmedLSN  string `json:"confirmed_lsn"`
		QueueDepth    *int   `json:"queue_depth"`
		DeadLetters   *int   `json:"dead_letters"`
	} `json:"lag"`
	Subscriptions []struct {
		Name      string `json:"name"`
		Succeeded int    `json:"succeeded"`
		Pending   int    `json:"pending"`
	} `json:"subscriptions"`
}

func TestStatus(t *testing.T) {
	db, receiver := newDatabase(t), harness.NewCollector(t)
	var before statusObject
	out := run(t, db.env(), "status", "--json").stdout
	require.NoError(t, json.Unmarshal([]byte(out), &before))
	require.Equal(t, db.slot, before.Lag.SlotName)
	require.False(t, before.Lag.Active)
	require.Contains(t, out, `"subscriptions": []`, "a list even when it is empty")
	require.Contains(t, run(t, db.env(), "status").stdout, "NOT READ by any relay")

	id := db.subscribe(receiver.URL())
	db.do("UPDATE outbox.subscriptions SET name = $2 WHERE id = $1", id, "reception\x1b[2J")
	r := db.start()
	db.publish(3)
	receiver.Wait(3, soon)
	db.settled(soon)
	var now statusObject
	require.NoError(t, json.Unmarshal([]byte(run(t, db.env(), "status", "--json").stdout), &now))
	require.True(t, now.Lag.Active)
	require.NotNil(t, now.Lag.LagBytes)
	require.NotNil(t, now.Lag.RetainedBytes)
	require.Zero(t, *now.Lag.QueueDepth)
	require.Zero(t, *now.Lag.DeadLetters)
	require.NotEqual(t, before.Lag.CheckpointLSN, now.Lag.CheckpointLSN)
	require.Len(t, now.Subscriptions, 1)
	require.Equal(t, 3, now.Subscriptions[0].Succeeded)

	table := run(t, db.env(), "status")
	require.Zero(t, table.code)
	require.Regexp(t, `slot +`+db.slot+`, read by a relay`, table.stdout)
	require.Regexp(t, `(?m)^reception\\x1b\[2J +active +3 +0 +0 +0 +0 +100\.00%`, table.stdout)
	r.terminate(soon)

	harness.Eventually(t, soon, "the slot, which its walsender may hold for a moment, is dropped", func() bool {
		_, err := db.Exec(t.Context(), "SELECT pg_drop_replication_slot($1)", db.slot)
		return err == nil
	})
	require.Contains(t, run(t, db.env(), "status").stdout, "the slot is gone")
}

func TestStatusWatches(t *testing.T) {
	db := newDatabase(t)
	p := harness.StartProcess(t, db.cli, db.env(), "status", "--watch", "--interval", "20ms")
	q := harness.StartProcess(t, db.cli, db.env(), "status", "--watch", "--interval", "20ms", "--json")
	for _, watched := range []*harness.Process{p, q} {
		harness.Eventually(t, soon, "it has looked three times", func() bool {
			return strings.Count(watched.Stdout(), db.slot) >= 3
		})
	}
	db.subscribe("http://127.0.0.1:1/", "tenant", "'north'")
	p.WaitFor("SUBSCRIPTION", soon)
	q.WaitFor(`"name":"test"`, soon)
	for _, watched := range []*harness.Process{p, q} {
		watched.Signal(syscall.SIGINT)
		require.Zero(t, watched.Wait(soon))
	}
	require.NotContains(t, p.Stdout(), "\x1b", "no terminal, no escapes")
	for line := range strings.Lines(q.Stdout()) {
		var s statusObject
		require.NoError(t, json.Unmarshal([]byte(line), &s), "one object a line")
	}
}

// A Postgres that goes away is what somebody watches for.
func TestStatusWatchesOnThroughARestart(t *testing.T) {
	server := harness.StartServer(t, "", nil)
	env := []string{"DATABASE_URL=" + server.URL("postgres")}
	require.Zero(t, run(t, env, "init").code)
	p := harness.StartProcess(t, harness.BuildWalhook(t), env, "status", "--watch", "--interval", "20ms")
	p.WaitFor("checkpoint", soon)
	require.NoError(t, server.Stop("fast"))
	harness.Eventually(t, soon, "the failure is told", func() bool { return p.Stderr() != "" })
	require.NoError(t, server.Restart(t.Context()))
	looks := strings.Count(p.Stdout(), "checkpoint")
	harness.Eventually(t, soon, "it looks again", func() bool { return strings.Count(p.Stdout(), "checkpoint") > looks })
	p.Signal(syscall.SIGTERM)
	require.Zero(t, p.Wait(soon))
}
