package acceptance_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// privileged is a database that its owner has set up, on a server of its own, and the environment of a relay whose role
// has only what walhook_relay has, and REPLICATION.
func privileged(t *testing.T) (db *database, log func() string) {
	t.Helper()
	server := harness.StartServer(t, "", nil)
	db = prepared(t, server.URL("postgres"))
	code, out := db.walhook("init", "--roles")
	require.Zero(t, code, out)
	db.do("CREATE ROLE relay LOGIN REPLICATION IN ROLE walhook_relay")
	db.url = strings.Replace(db.url, "postgres@", "relay@", 1) // of processes from now on; the pool stays the owner's
	return db, server.Log
}

// agree answers handshakes of CloudEvents, and everything else with that status.
func agree(status int) func(harness.Request) harness.Response {
	return func(r harness.Request) harness.Response {
		if r.Method == http.MethodOptions {
			return harness.Response{Status: 200, Header: http.Header{"Webhook-Allowed-Origin": {"*"}, "Webhook-Allowed-Rate": {"*"}}}
		}
		return harness.Response{Status: status}
	}
}

// A relay does all that it has to do with the rights of walhook_relay: not one statement is refused.
func TestTheRelayNeedsNoMoreThanItsRole(t *testing.T) {
	t.Parallel()
	db, log := privileged(t)
	db.do("CREATE TABLE outbox.attempts_p20200101 PARTITION OF outbox.attempts FOR VALUES FROM ('2020-01-01') TO ('2020-01-02')")
	good, failing, gone, shy := harness.NewCollector(t), harness.NewCollector(t), harness.NewCollector(t), harness.NewCollector(t)
	failing.Script(harness.Response{Status: 503})
	dead := harness.NewCollector(t)
	dead.Answer(agree(500))
	gone.Answer(agree(410))
	shy.Answer(agree(200))
	all := db.subscribe(good.URL())
	db.subscribe(failing.URL(), "retry_delay", "'1 ms'", "ordering", "'strict'")
	deadID := db.subscribe(dead.URL(), "max_retries", "1", "retry_delay", "'1 ms'")
	goneID := db.subscribe(gone.URL())
	db.subscribe(shy.URL(), "verification", "'cloudevents'")
	invalid := db.subscribe(good.URL(), "filters", `'{"a": {"nonsense": 1}}'`)

	r := db.start("--alerts-interval", "100ms", "--alerts-consecutive-failures", "1", "--replication-heartbeat", "100ms")
	eventually := func(what, sql string, args ...any) {
		t.Helper()
		harness.Eventually(t, soon, what, func() bool { return ask[bool](db, sql, args...) })
	}
	db.publish(3)
	db.do("SELECT outbox.emit('emitted', '{}')")
	good.Wait(4, soon)
	failing.Wait(5, soon)
	eventually("dead letters", "SELECT count(*) = 4 FROM outbox.dead_letters WHERE subscription_id = $1", deadID)
	eventually("410", "SELECT NOT is_active FROM outbox.subscriptions WHERE id = $1", goneID)
	eventually("the handshake", "SELECT verified_at IS NOT NULL FROM outbox.subscriptions WHERE verification <> 'none'")
	eventually("the finding", "SELECT status = 'invalid' FROM outbox.subscriptions WHERE id = $1", invalid)
	eventually("an alert and its event", "SELECT EXISTS (SELECT FROM outbox.alerts WHERE subscription_id = $1) AND EXISTS (SELECT FROM outbox.events WHERE starts_with(type, 'walhook.alert.'))", deadID)
	_, err := harness.Connect(t, db.url).Exec(t.Context(), "SELECT outbox.sample_wal($1), outbox.sample_subscriptions(), outbox.sample_system($1)", db.slot)
	require.NoError(t, err, "what the relay does every few minutes")
	eventually("upkeep", "SELECT to_regclass('outbox.attempts_p20200101') IS NULL")

	before := good.Count()
	replay := ask[uuid.UUID](db, "SELECT outbox.replay($1, now() - interval '1 hour')", all)
	eventually("the replay", "SELECT state = 'done' FROM outbox.replays WHERE id = $1", replay)
	good.Wait(before+4, soon)
	db.do("SELECT outbox.send_test($1)", all)
	db.do("DELETE FROM outbox.subscriptions WHERE id = $1", deadID)
	good.Wait(before+5, soon)
	for _, page := range []string{"/metrics", "/readyz"} {
		status, body := r.get(page)
		require.Equal(t, 200, status, body)
	}
	for _, args := range [][]string{{"status"}, {"audit"}, {"doctor", "--skip-urls"}} {
		code, out := db.walhook(args...)
		require.Zero(t, code, "%v: %s", args, out)
	}
	r.terminate(soon)
	require.NotContains(t, r.Stderr(), "42501")
	require.NotContains(t, strings.ReplaceAll(log(), "permission denied for function pg_ls_waldir", ""), "permission denied")
}

// API, dashboard and the making of tokens take nothing more either.
func TestTheAPINeedsNoMoreThanTheRelaysRole(t *testing.T) {
	t.Parallel()
	db, log := privileged(t)
	receiver := harness.NewCollector(t)
	r := db.start("--api-token", "a-token-of-the-configuration")
	token := db.newToken("--name", "n", "--scope", "manage,publish")
	var made struct{ ID string }
	require.NoError(t, json.Unmarshal(r.send(token, "POST", webhooks, `{"name": "n", "url": "`+receiver.URL()+`", "secret": "hush"}`), &made))
	hook := webhooks + made.ID
	r.send(token, "PATCH", hook, `{"description": "d"}`)
	r.send(token, "POST", hook+"/deactivate", "")
	r.send(token, "POST", hook+"/activate", "")
	r.send(token, "POST", hook+"/rotate-secret", `{"new_secret": "hush hush"}`)
	r.send(token, "POST", webhooks+"events/trigger", `{"event_type": "a.b", "event_data": {}}`)
	receiver.Wait(1, soon)
	r.send(token, "POST", hook+"/test", "{}")
	r.send(token, "POST", hook+"/replay", `{"since": "`+time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)+`"}`)
	r.send(token, "POST", "/api/v1/event-types", `{"name": "a.b", "schema": {"type": "object"}}`)
	for _, path := range []string{webhooks, hook, hook + "/stats", hook + "/calls", webhooks + "system/stats", "/api/v1/event-types", "/api/v1/replication"} {
		r.send(token, "GET", path, "")
	}
	r.send(token, "DELETE", hook, "")
	require.Zero(t, db.token("revoke", "n").code)
	r.terminate(soon)
	require.NotContains(t, strings.ReplaceAll(log(), "permission denied for function pg_ls_waldir", ""), "permission denied")
}

// send makes a request of the API, which must succeed, and returns the answer.
func (r *relay) send(token, method, path, body string) []byte {
	r.t.Helper()
	request, err := http.NewRequestWithContext(r.t.Context(), method, r.url+path, strings.NewReader(body))
	require.NoError(r.t, err)
	request.Header.Set("Authorization", "Bearer "+token)
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	client := http.Client{Timeout: soon}
	defer client.CloseIdleConnections()
	response, err := client.Do(request)
	require.NoError(r.t, err)
	answer, err := io.ReadAll(response.Body)
	require.NoError(r.t, err)
	require.NoError(r.t, response.Body.Close())
	require.Less(r.t, response.StatusCode, 300, "%s %s: %s", method, path, answer)
	return answer
}

// A lost slot is recovered with the same rights: a slot takes REPLICATION alone.
func TestTheRelaysRoleRecoversALostSlot(t *testing.T) {
	t.Parallel()
	db, log := privileged(t)
	good := harness.NewCollector(t)
	db.subscribe(good.URL())
	r := db.start()
	db.publish(1)
	good.Wait(1, soon)
	r.terminate(soon)
	db.publish(2)
	harness.Eventually(t, soon, "the server lets go of the slot", func() bool {
		return !ask[bool](db, "SELECT active FROM pg_replication_slots WHERE slot_name = $1", db.slot)
	})
	db.do("SELECT pg_drop_replication_slot($1)", db.slot)
	r = db.start()
	good.Wait(3, soon)
	require.Equal(t, 1, ask[int](db, "SELECT count(*) FROM outbox.recoveries"))
	r.waitReady(200, "")
	r.terminate(soon)
	require.NotContains(t, log(), "permission denied")
}
