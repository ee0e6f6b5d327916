package acceptance_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

func TestTriggerPublishes(t *testing.T) {
	db := newDatabase(t)
	r := run(t, db.env(), "trigger", "patient.created", "--data", `{"amount": 1250.50, "big": 12345678901234567890}`, "--key", "p-17",
		"--tenant", "north", "--source", "desk", "--correlation-id", "c-1", "--header", "traceparent=00-1-2-01", "--header", "note=a=b")
	require.Zero(t, r.code, r.stderr)
	id, err := uuid.Parse(strings.TrimSpace(r.stdout))
	require.NoError(t, err, "the id alone, for scripts")
	require.Equal(t, `patient.created|{"big": 12345678901234567890, "amount": 1250.50}|p-17|north|desk|c-1|{"note": "a=b", "traceparent": "00-1-2-01"}`,
		ask[string](db, "SELECT concat_ws('|', type, payload, key, tenant, source, correlation_id, headers) FROM outbox.events WHERE id = $1", id))

	o := run(t, db.env(), "trigger", "a.b", "--json").object(t)
	require.Equal(t, "{}|t", ask[string](db, "SELECT concat_ws('|', payload, key IS NULL) FROM outbox.events WHERE id::text = $1", o["id"]))
	require.Equal(t, "a.b", o["type"])
}

func TestTriggerReadsFilesAndStandardInput(t *testing.T) {
	db := newDatabase(t)
	path := filepath.Join(t.TempDir(), "payload.json")
	require.NoError(t, os.WriteFile(path, []byte("{\n  \"n\": 1.0\n}\n"), 0o600))
	fromFile := run(t, db.env(), "trigger", "a.b", "--data", "@"+path)
	require.Zero(t, fromFile.code, fromFile.stderr)
	p := harness.StartProcess(t, "/bin/sh", db.env(), "-c", `printf '{"n": 2.0}' | "$0" trigger a.b --data -`, db.cli)
	require.Zero(t, p.Wait(soon), p.Stderr())
	require.Equal(t, `{"n": 1.0} {"n": 2.0}`, ask[string](db, "SELECT string_agg(payload::text, ' ' ORDER BY id) FROM outbox.events"))
}

func TestTriggerEmitsALogicalMessage(t *testing.T) {
	db, receiver := newDatabase(t), harness.NewCollector(t)
	db.subscribe(receiver.URL())
	db.start()
	r := run(t, db.env(), "trigger", "user.login", "--data", `{"n": 1.0}`, "--emit")
	require.Zero(t, r.code, r.stderr)
	got := receiver.Wait(1, soon)[0]
	require.Equal(t, "user.login", got.Header.Get("X-Webhook-Event"))
	require.Contains(t, string(got.Body), `{"n": 1.0}`)
	require.Zero(t, ask[int](db, "SELECT count(*) FROM outbox.events"))
}

func TestTriggerRefusesWhatIsWrong(t *testing.T) {
	db := newDatabase(t)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"a.b", "--data", "{n: 1}"}, `"{n: 1}" is not JSON`},
		{[]string{"a.b", "--data", ""}, `"" is not JSON`},
		{[]string{"a.b", "--data", "@/no/such/file"}, "/no/such/file"},
		{[]string{"a.b", "--data", "-"}, "standard input"},
		{[]string{"a.b", "--data", `{"n": "\u0000"}`}, "jsonb cannot store"},
		{[]string{"a b"}, `"a b"`},
		{[]string{"patient.*"}, `"patient.*"`},
		{[]string{"a.b", "--header", "traceparent"}, `"traceparent" is no name=value`},
		{[]string{"a.b", "--header", "a=1", "--header", "a=2"}, `"a" is given twice`},
		{[]string{"a.b", "--key", strings.Repeat("k", 1025)}, "1025 bytes"},
	} {
		r := run(t, db.env(), append([]string{"trigger"}, c.args...)...)
		require.Equal(t, 2, r.code, "%v: %s", c.args, r.stderr)
		require.Contains(t, r.stderr, c.want)
		require.Empty(t, r.stdout)
	}
	require.Zero(t, ask[int](db, "SELECT count(*) FROM outbox.events"))

	r := run(t, []string{"DATABASE_URL=" + harness.EmptyDatabase(t)}, "trigger", "a.b")
	require.Equal(t, 2, r.code, r.stderr)
	require.Contains(t, r.stderr, "run walhook init")
}
