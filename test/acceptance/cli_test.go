package acceptance_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// result is what a command left behind.
type result struct {
	code           int
	stdout, stderr string
}

// run runs walhook to its end, with the given environment only.
func run(t *testing.T, env []string, args ...string) result {
	t.Helper()
	p := harness.StartProcess(t, harness.BuildWalhook(t), append([]string{"GORACE=atexit_sleep_ms=0"}, env...), args...)
	code := p.Wait(time.Minute)
	require.NotContains(t, p.Stderr(), "DATA RACE")
	return result{code: code, stdout: p.Stdout(), stderr: p.Stderr()}
}

// object reads the one JSON object that standard output must be.
func (r result) object(t *testing.T) map[string]any {
	t.Helper()
	require.Zero(t, r.code, r.stderr)
	var o map[string]any
	require.NoError(t, json.Unmarshal([]byte(r.stdout), &o), r.stdout)
	return o
}

// An error of the caller's ends with 2, names what is wrong and leaves standard output empty.
func TestWrongUsageEndsWithTwo(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	const url = "DATABASE_URL=postgres://postgres@127.0.0.1:1/none"
	for _, c := range []struct {
		name string
		env  []string
		args []string
		want []string // what standard error must say
	}{
		{"unknown command", nil, []string{"relay"}, []string{`unknown command "relay"`, "walhook --help"}},
		{"unknown flag", nil, []string{"run", "--fast"}, []string{"--fast", "walhook run --help"}},
		{"too many arguments", nil, []string{"status", "please"}, []string{"please"}},
		{"flag without its value", nil, []string{"run", "--slot"}, []string{"--slot"}},
		{"no database", nil, []string{"run"}, []string{"database_url", "DATABASE_URL"}},
		{"no database, status", nil, []string{"status"}, []string{"database_url"}},
		{"no database, trigger", nil, []string{"trigger", "a.b"}, []string{"database_url"}},
		{"no database URL", []string{"DATABASE_URL=mysql://x"}, []string{"init"}, []string{"database_url", "postgres://"}},
		{"unreadable database URL", []string{"DATABASE_URL=postgres://u@host:port/d"}, []string{"status"}, []string{"cannot parse"}},
		{"bad value of a flag", []string{url}, []string{"run", "--record-interval", "soon"}, []string{"record-interval", `"soon"`}},
		{"value out of limits", []string{url}, []string{"run", "--record-interval", "1h"}, []string{"record.interval", "1h"}},
		{"bad value of a variable", []string{url, "WALHOOK_SLOT=My-Slot"}, []string{"run"}, []string{"slot", `"My-Slot"`}},
		{"unknown variable", []string{url, "WALHOOK_SLTO=x"}, []string{"run"}, []string{"WALHOOK_SLTO", "WALHOOK_SLOT"}},
		{"unknown key in the file", []string{url}, []string{"run", "--config", file("key.yaml", "slto: x\n")}, []string{"slto", "slot"}},
		{"bad value in the file", []string{url}, []string{"run", "--config", file("value.yaml", "record:\n  interval: soon\n")}, []string{"record.interval", "soon"}},
		{"no such file", []string{url}, []string{"run", "--config", filepath.Join(dir, "none.yaml")}, []string{"none.yaml"}},
		{"bad value of a command's variable", []string{"WALHOOK_EVENTS=many"}, []string{"demo"}, []string{"WALHOOK_EVENTS", `"many"`}},
		{"watch too often", []string{url}, []string{"status", "--watch", "--interval", "1us"}, []string{"--interval", "1µs"}},
		{"listen, status", nil, []string{"listen", "--status", "99"}, []string{"--status 99", "200 to 599"}},
		{"listen, address", nil, []string{"listen", "--addr", "here"}, []string{"--addr", `"here"`}},
		{"listen, forward", nil, []string{"listen", "--forward-to", "localhost:3000"}, []string{"--forward-to", "localhost:3000", "http://"}},
		{"listen, count", nil, []string{"listen", "--count", "-1"}, []string{"--count -1"}},
		{"demo, events", nil, []string{"demo", "--events", "-1"}, []string{"--events -1"}},
		{"demo, rate", nil, []string{"demo", "--rate", "NaN"}, []string{"--rate NaN"}},
		{"demo, address", nil, []string{"demo", "--listen", "here"}, []string{"listen", `"here"`}},
		{"trigger without a type", []string{url}, []string{"trigger"}, []string{"1 arg"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := run(t, c.env, c.args...)
			require.Equal(t, 2, r.code, r.stderr)
			require.Empty(t, r.stdout)
			for _, want := range c.want {
				require.Contains(t, r.stderr, want)
			}
		})
	}
}

// That Postgres does not answer is nobody's mistake. The relay waits for it, see TestRunWaitsForPostgres.
func TestUnreachablePostgresEndsWithOne(t *testing.T) {
	for _, args := range [][]string{{"init"}, {"status"}, {"trigger", "a.b"}} {
		r := run(t, []string{"DATABASE_URL=postgres://postgres:hidden@127.0.0.1:1/none"}, args...)
		require.Equal(t, 1, r.code, "%v: %s", args, r.stderr)
		require.Contains(t, r.stderr, "127.0.0.1")
		require.NotContains(t, r.stderr, "hidden")
	}
}

func TestVersion(t *testing.T) {
	r := run(t, nil, "version")
	require.Zero(t, r.code)
	require.Regexp(t, `^walhook \S+ \(go\S+, schema \d+\)\n$`, r.stdout)
	o := run(t, nil, "version", "--json").object(t)
	require.Contains(t, o, "version")
	require.Positive(t, o["schema"])
}
