package main

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// The command prints the row, and its exit code says whether something is missing.
func TestAuditCommand(t *testing.T) {
	t.Parallel()
	url := harness.Database(t)
	db := harness.Connect(t, url)
	audit := func(args ...string) (code int, stdout, stderr string) {
		t.Helper()
		var out, errs bytes.Buffer
		a := &app{stdout: &out, stderr: &errs, environ: []string{"DATABASE_URL=" + url}}
		code = a.execute(t.Context(), append([]string{"audit"}, args...))
		return code, out.String(), errs.String()
	}
	code, stdout, stderr := audit()
	require.Equal(t, exitDone, code, stderr)
	require.Contains(t, stdout, "events       0 committed, 0 of them not read yet\ndeliveries   0 matched: 0 delivered, 0 pending, 0 dead\nunaccounted  0\n")

	_, err := db.Exec(t.Context(), "SELECT outbox.publish('x', '{}'), outbox.publish('x', '{}')") // which no relay will ever see
	require.NoError(t, err)
	code, stdout, stderr = audit("--json", "--since", "1h")
	require.Equal(t, exitFailed, code)
	require.Contains(t, stderr, "2 events or deliveries between")
	var found map[string]any
	require.NoError(t, json.Unmarshal([]byte(stdout), &found))
	require.NotEmpty(t, found["since"])
	require.NotEmpty(t, found["until"])
	delete(found, "since")
	delete(found, "until")
	require.Equal(t, map[string]any{"events": 2.0, "matched": 0.0, "delivered": 0.0, "pending": 0.0, "dead": 0.0, "unread": 0.0, "unaccounted": 2.0}, found)

	code, stdout, _ = audit("--since", "2h", "--until", "1h")
	require.Equal(t, exitDone, code)
	require.Contains(t, stdout, "events       0 committed")
	for _, wrong := range [][]string{{"--since", "1h", "--until", "2h"}, {"--until", "2d"}, {"--since", "yesterday"}, {"x"}} {
		code, _, stderr = audit(wrong...)
		require.Equal(t, exitUsage, code, wrong)
		require.NotEmpty(t, stderr)
	}
}
