package relay_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// TestPayloadsArriveByteForByte sends every payload four ways: as a row and as a logical message, from memory
// and, because the receiver first fails, out of the queue. What arrives is what Postgres shows of it.
func TestPayloadsArriveByteForByte(t *testing.T) {
	digits := strings.Repeat("1234567890", 3)
	payloads := map[string]string{
		"empty object":       `'{}'`,
		"empty array":        `'[]'`,
		"null":               `'null'`,
		"true":               `'true'`,
		"empty string":       `'""'`,
		"number alone":       `'` + digits + `.` + digits + `'`,
		"numbers":            `'{"big": ` + digits + `, "small": -0.` + digits + `, "zeros": 1.2300, "one": 1.0, "exponent": 1e300, "tiny": 1e-30, "int64": 9223372036854775808, "double": 9007199254740993}'`,
		"unicode":            `'{"grüße": "Größe ΑΒΓ 日本語 עברית 👩‍👩‍👧 \u2028\u2029 \ud83d\ude00 é é"}'`,
		"escapes":            `'{"a\"b\\": "\n\t\b\u0001 </script> \/ \u007f"}'`,
		"keys in any order":  `'{"b": 1, "a": 2, "aa": 3, "": 4}'`,
		"200 levels deep":    `(repeat('[', 200) || repeat(']', 200))::jsonb`,
		"a name of ours":     `'{"event_type": "x", "webhook_id": "y", "attempt": 99}'`,
		"9 MB":               `jsonb_build_object('s', repeat('0123456789 äöü€ ', 449000))`,
		"100,000 digits":     `jsonb_build_array((repeat('9', 100000))::numeric, true)`,
		"many numbers":       `(SELECT jsonb_agg(n * 1.10) FROM generate_series(1, 20000) AS n)`,
		"as large as can be": `to_jsonb(repeat('x', 10485760 - 4))`,
	}
	url := harness.Database(t)
	db := harness.Connect(t, url)
	reliable, flaky, raw := harness.NewCollector(t), harness.NewCollector(t), harness.NewCollector(t)
	flaky.Answer(func(r harness.Request) harness.Response {
		if r.Header.Get("X-Webhook-Attempt") == "1" {
			return answer(500)
		}
		return harness.Response{}
	})
	subscribe(t, db, reliable.URL())
	subscribe(t, db, flaky.URL(), "retry_delay", "'1 ms'")
	subscribe(t, db, raw.URL(), "payload_format", "'raw'")
	start(t, options(url))

	sent := map[string]string{} // by type: what Postgres shows
	for name, payload := range payloads {
		for _, function := range []string{"publish", "emit"} {
			kind := function + "." + strings.ReplaceAll(name, " ", "_")
			sent[kind] = value[string](t, db, "SELECT p::text FROM (SELECT p, outbox."+function+"($1, p) FROM (SELECT ("+payload+")::jsonb AS p OFFSET 0) v) w", kind)
		}
	}
	n := len(sent)
	settled(t, db)
	for what, r := range map[string]*harness.Collector{"from memory": reliable, "out of the queue": flaky} {
		perEvent := map[string]int{"from memory": 1, "out of the queue": 2}[what]
		require.Equal(t, n*perEvent, r.Count(), what)
		for _, attempts := range r.ByID() {
			for _, request := range attempts {
				kind := request.Header.Get("X-Webhook-Event")
				require.Contains(t, sent, kind)
				want := `{"event_type":"` + kind + `","event_data":` + sent[kind] + `,"webhook_id":"` + request.ID() + `","timestamp":"`
				requireSame(t, want, string(request.Body[:min(len(want), len(request.Body))]), kind+" "+what)
			}
		}
	}
	require.Equal(t, n, raw.Count())
	for _, request := range raw.Requests() {
		kind := request.Header.Get("X-Webhook-Event")
		requireSame(t, sent[kind], string(request.Body), kind+" raw")
	}
}

// requireSame compares texts of megabytes without printing them.
func requireSame(t *testing.T, want, got, what string) {
	t.Helper()
	if got == want {
		return
	}
	at := 0
	for at < len(want) && at < len(got) && want[at] == got[at] {
		at++
	}
	t.Fatalf("%s: sent %d bytes and got %d, which differ from byte %d on: %.60q instead of %.60q", what, len(want), len(got), at, got[at:], want[at:])
}
