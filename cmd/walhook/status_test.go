package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/ops"
	"github.com/walhook/walhook/test/harness"
)

// statusOf runs the command on a server with the schema and a slot of that name.
func statusOf(t *testing.T, url, slot string, args ...string) (int, string, string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	a := &app{stdout: &stdout, stderr: &stderr, environ: []string{"DATABASE_URL=" + url, "WALHOOK_SLOT=" + slot}}
	code := a.execute(t.Context(), append([]string{"status"}, args...))
	return code, stdout.String(), stderr.String()
}

func statusDatabase(t *testing.T) (url, slot string) {
	t.Helper()
	url, slot = harness.Database(t), fmt.Sprintf("status_%d", time.Now().UnixNano())
	db := harness.Connect(t, url)
	for _, statement := range []string{
		"SELECT pg_create_logical_replication_slot('" + slot + "', 'pgoutput')",
		`INSERT INTO outbox.checkpoint (slot_name, lsn, confirmed_lsn, recorded_through, system_identifier, timeline)
			SELECT slot_name, confirmed_flush_lsn, confirmed_flush_lsn, now(), 'x', 1 FROM pg_replication_slots WHERE slot_name = '` + slot + `'`,
		"INSERT INTO outbox.wal_samples (sampled_at, slot_name, wal_lsn) VALUES (now() - interval '10 minutes', '" + slot + "', '0/0')",
		"INSERT INTO outbox.subscriptions (name, url) VALUES ('reception', 'http://localhost/')",
		`INSERT INTO outbox.subscription_totals (subscription_id, attempts, succeeded, failed, delivered, total_us, latency, timeouts, lag_us, lag,
				consecutive_failures, last_attempt_at)
			SELECT id, 2, 2, 0, 2, 6000, '{0,0,2,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0}', 0, 24000, '{0,0,0,0,2,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0}', 0, now()
			FROM outbox.subscriptions`,
	} {
		_, err := db.Exec(t.Context(), statement)
		require.NoError(t, err, statement)
	}
	return url, slot
}

func TestStatusShowsTheForecast(t *testing.T) {
	t.Parallel()
	url, slot := statusDatabase(t)
	code, out, errs := statusOf(t, url, slot, "--json", "--replication-wal-disk-size", "1024GiB")
	require.Zero(t, code, errs)
	var s struct {
		Forecast      map[string]any
		Subscriptions []map[string]any
	}
	require.NoError(t, json.Unmarshal([]byte(out), &s))
	require.Equal(t, "unlimited", s.Forecast["slot"])
	require.Nil(t, s.Forecast["seconds_until_lost"])
	require.Equal(t, "approaching", s.Forecast["disk"])
	require.Positive(t, s.Forecast["seconds_until_disk_full"])
	require.InDelta(t, 600, s.Forecast["over_seconds"], 60)
	require.Positive(t, s.Forecast["wal_bytes_per_second"])
	require.InDelta(t, 1<<40, s.Forecast["free_bytes"], 1<<36)
	require.Contains(t, out, `"code": "no_relay"`)
	require.Equal(t, 12.0, s.Subscriptions[0]["commit_to_delivery_mean_ms"])
	require.Equal(t, 16.0, s.Subscriptions[0]["commit_to_delivery_p95_ms"])
	require.Contains(t, s.Subscriptions[0], "oldest_pending_seconds")

	code, out, errs = statusOf(t, url, slot)
	require.Zero(t, code, errs)
	require.Regexp(t, `(?m)^WAL +[0-9.]+ [KMGT]?i?B/s written, 0 B/s let go of by the slot, over the last 10m`, out)
	require.Regexp(t, `(?m)^slot lost +never: max_slot_wal_keep_size is not set$`, out)
	require.Regexp(t, `(?m)^disk full +in .+ at this rate, [0-9.]+ [KMGT]iB free$`, out, "the server runs on this machine")
	require.Regexp(t, `(?m)^held back by +no relay reads the slot \([0-9.]+ [KMGT]?i?B`, out)
	require.Regexp(t, `(?m)^reception .* 3\.0 ms +4\.0 ms +12\.0 ms +16\.0 ms +-$`, out)
}

// The words for every outlook, and what is not known is left out.
// A slot without a limit has no bytes left either: the two are told apart.
func TestStatusOfALostSlot(t *testing.T) {
	t.Parallel()
	s := status{Lag: ops.Lag{SlotName: "s", WALStatus: "lost"}, Forecast: ops.Forecast{Slot: ops.OutlookLost, Disk: ops.OutlookSteady}}
	var text strings.Builder
	s.write(&text)
	require.Regexp(t, `retained +no WAL: the slot is gone or invalidated`, text.String())
	require.NotContains(t, text.String(), "max_slot_wal_keep_size")
}

func TestForecastInWords(t *testing.T) {
	t.Parallel()
	seconds := 3*3600 + 20*60.0
	require.Equal(t, "in 3h20m at this rate", outlookText(ops.OutlookApproaching, &seconds))
	for _, o := range []ops.Outlook{ops.OutlookLost, ops.OutlookSteady, ops.OutlookUnlimited, ops.OutlookSlotFirst, ops.OutlookUnknownRate, ops.OutlookUnknownRoom} {
		require.NotEmpty(t, outlookText(o, nil), o)
	}
	var text strings.Builder
	row := func(name, format string, args ...any) { fmt.Fprintf(&text, name+": "+format+"\n", args...) }
	writeForecast(&ops.Forecast{Slot: ops.OutlookLost, Disk: ops.OutlookUnknownRoom, Blind: true,
		HeldBackBy: []ops.Holder{{Text: "somebody\x1b"}}}, row)
	require.Equal(t, `WAL: rate unknown: no sample to compare with yet
slot lost: it is
disk full: unknown: set replication.wal_disk_size to the room that there is for WAL
held back by: somebody\x1b
: others' transactions cannot be seen: this role is no member of pg_monitor
`, text.String())
}

func TestSpansInWords(t *testing.T) {
	t.Parallel()
	for seconds, want := range map[float64]string{0: "0s", .25: "250ms", 59.6: "1m0s", 3599: "59m59s", 3600: "1h0m", 47 * 3600: "47h0m",
		72 * 3600: "3 days", 1e12: "more than 10 years", 1e300: "more than 10 years"} {
		require.Equal(t, want, spanText(seconds), seconds)
	}
}
