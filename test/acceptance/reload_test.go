package acceptance_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// settingsFile is a walhook.yaml that changes.
type settingsFile struct {
	t    *testing.T
	path string
}

func newSettingsFile(t *testing.T, lines ...string) settingsFile {
	f := settingsFile{t, filepath.Join(t.TempDir(), "walhook.yaml")}
	f.write(lines...)
	return f
}

func (f settingsFile) write(lines ...string) {
	f.t.Helper()
	require.NoError(f.t, os.WriteFile(f.path, []byte(strings.Join(lines, "\n")+"\n"), 0o600))
}

// startWith is start with a configuration file for everything but slot and database.
func (db *database) startWith(f settingsFile) *relay {
	db.t.Helper()
	return db.start("--config", f.path)
}

// reload sends SIGHUP and waits for the line of the log that contains the text.
func (r *relay) reload(says string) string {
	r.t.Helper()
	r.Signal(syscall.SIGHUP)
	return r.WaitFor(says, soon)
}

func (db *database) epoch() int { return ask[int](db, "SELECT epoch FROM outbox.checkpoint") }

// What the relay does not depend on changes without it; what it does depend on, by starting it anew in the same process.
// Address and counters stay.
func TestReloadTakesNewSettings(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	receiver := harness.NewCollector(t)
	id := db.subscribe(receiver.URL(), "payload_format", "'raw'")
	file := newSettingsFile(t, "log_level: warn")
	r := db.launch("--config", file.path)
	harness.Eventually(t, soon, "the relay has its slot", func() bool { return db.epoch() == 1 })
	require.Empty(t, r.Stdout())
	require.NotContains(t, r.Stderr(), `"level":"info"`)

	file.write("log_level: info", "retention:", "  events: 48h")
	first := (&relay{Process: r, t: t}).reload(`"changed":["log_level","retention.events"]`)
	var line struct {
		Message   string
		Restarted bool
		Listen    string
	}
	require.NoError(t, json.Unmarshal([]byte(first), &line))
	require.Equal(t, "reloaded", line.Message)
	require.False(t, line.Restarted)
	require.Equal(t, 1, db.epoch(), "the relay was not touched")
	running := &relay{Process: r, t: t, url: "http://" + line.Listen}
	db.publish(5)
	receiver.Wait(5, soon)
	db.settled(soon)

	file.write("log_format: console", "retention:", "  events: 48h", "delivery:", "  max_senders: 7", "  origin: relay.example.com")
	running.reload(`reloaded changed=["log_format","delivery.max_senders","delivery.origin"]`)
	harness.Eventually(t, soon, "another relay has the slot", func() bool { return db.epoch() == 2 })
	db.publish(5)
	receiver.Wait(10, soon)
	db.settled(soon)
	_, metrics := running.get("/metrics")
	require.Contains(t, metrics, "walhook_events_total 10\n")
	running.terminate(soon)
	require.Zero(t, db.verify(id, receiver), "deliveries sent again")
}

// Reloads under load lose nothing and repeat nothing, however many come.
func TestReloadUnderLoad(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	receiver := harness.NewCollector(t)
	id := db.subscribe(receiver.URL(), "payload_format", "'raw'")
	file := newSettingsFile(t)
	r := db.startWith(file)
	w := db.write(21, 5*time.Millisecond)
	for n := 1; n <= 4; n++ {
		receiver.Wait(receiver.Count()+50, soon)
		file.write("delivery:", fmt.Sprintf("  max_senders: %d", 100+n))
		r.Signal(syscall.SIGHUP)
		r.Signal(syscall.SIGHUP)
		harness.Eventually(t, soon, "the next relay has the slot", func() bool { return db.epoch() == 1+n })
	}
	receiver.Wait(receiver.Count()+50, soon)
	w.halt()
	db.settled(soon)
	r.terminate(soon)
	require.Zero(t, db.verify(id, receiver), "deliveries sent again")
}

// Settings that cannot be used change nothing at all, and one line says why.
func TestReloadRefusesWhatCannotBeUsed(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	receiver := harness.NewCollector(t)
	db.subscribe(receiver.URL())
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = taken.Close() })
	good := []string{"database_url: '" + db.url + "'", "slot: " + db.slot, "listen: 127.0.0.1:0"}
	file := newSettingsFile(t, good...)
	p := harness.StartProcess(t, db.cli, []string{"GORACE=atexit_sleep_ms=0"}, "run", "--config", file.path)
	var line struct{ Listen string }
	require.NoError(t, json.Unmarshal([]byte(p.WaitFor("walhook runs", soon)), &line))
	r := &relay{Process: p, t: t, url: "http://" + line.Listen}
	r.waitReady(200, "running")

	for _, c := range []struct {
		lines []string
		says  []string
	}{
		{append(good, "slto: x"), []string{"slto", "slot"}},
		{append(good, "record:", "  interval: soon"), []string{"record.interval", "soon"}},
		{append(good, "record:", "  interval: 1h", "queue:", "  poll_interval: 1h"), []string{"record.interval", "1h", "1ms to 1m", "queue.poll_interval"}},
		{append(good, "secrets:", "  keyset_file: /none/keyset.json"), []string{"secrets.keyset_file", "/none/keyset.json"}},
		{[]string{good[0], good[1], "listen: " + taken.Addr().String()}, []string{"listen", taken.Addr().String(), "another address"}},
		{[]string{"database_url: 'postgres://postgres:hidden@127.0.0.1:1/none'", good[1], good[2]}, []string{"database_url", "127.0.0.1:1", "send SIGHUP again"}},
		{[]string{good[0], "slot: walhook_missing", good[2]}, []string{"slot walhook_missing", "--slot " + db.slot}},
	} {
		file.write(c.lines...)
		before := strings.Count(p.Stderr(), "reload refused")
		p.Signal(syscall.SIGHUP)
		harness.Eventually(t, soon, "the reload is refused", func() bool { return strings.Count(p.Stderr(), "reload refused") == before+1 })
		lines := strings.Split(strings.TrimSpace(p.Stderr()), "\n")
		last := lines[len(lines)-1]
		for _, text := range append(c.says, `"level":"error"`, "reload refused") {
			require.Contains(t, last, text)
		}
	}
	require.NotContains(t, p.Stderr(), "hidden")
	require.Equal(t, 1, db.epoch(), "the relay was never touched")
	r.waitReady(200, "running")
	file.write(good...)
	r.reload(`"changed":[]`)
	db.publish(1)
	receiver.Wait(1, soon)
	r.terminate(soon)
}

// Another address: it answers there, and no longer here.
func TestReloadMovesTheAddress(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	file := newSettingsFile(t, "listen: 127.0.0.1:0")
	p := harness.StartProcess(t, db.cli, []string{"DATABASE_URL=" + db.url, "WALHOOK_SLOT=" + db.slot, "GORACE=atexit_sleep_ms=0"}, "run", "--config", file.path)
	var line struct{ Listen string }
	require.NoError(t, json.Unmarshal([]byte(p.WaitFor("walhook runs", soon)), &line))
	before := &relay{Process: p, t: t, url: "http://" + line.Listen}
	before.waitReady(200, "running")
	file.write("listen: '[::1]:0'")
	if l, err := net.Listen("tcp", "[::1]:0"); err != nil {
		file.write("listen: localhost:0")
	} else {
		require.NoError(t, l.Close())
	}
	require.NoError(t, json.Unmarshal([]byte(before.reload(`"message":"reloaded"`)), &line))
	after := &relay{Process: p, t: t, url: "http://" + line.Listen}
	after.waitReady(200, "running")
	status, _ := before.get("/healthz")
	require.Zero(t, status)
	after.terminate(soon)
}

// A signal that comes while the old relay drains is kept: another SIGHUP is done afterwards, and SIGTERM stops.
func TestSignalsDuringAReload(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	receiver := harness.NewCollector(t)
	id := db.subscribe(receiver.URL(), "payload_format", "'raw'")
	answer := make(chan struct{})
	receiver.Script(harness.Response{Delay: answer})
	file := newSettingsFile(t)
	r := db.startWith(file)
	db.publish(1)
	receiver.Wait(1, soon)
	file.write("delivery:", "  max_senders: 7")
	r.reload("the relay stops to start with them")
	file.write("delivery:", "  max_senders: 7", "retention:", "  events: 48h")
	r.Signal(syscall.SIGHUP)
	require.NotContains(t, r.Stderr(), `"message":"reloaded"`, "a request is under way")
	close(answer)
	r.WaitFor(`"changed":["delivery.max_senders"],"restarted":true`, soon)
	r.WaitFor(`"changed":["retention.events"],"restarted":false`, soon)
	r.waitReady(200, "running")

	answer = make(chan struct{})
	receiver.Script(harness.Response{Delay: answer})
	db.publish(1)
	receiver.Wait(2, soon)
	file.write("delivery:", "  max_senders: 8", "retention:", "  events: 48h")
	r.Signal(syscall.SIGHUP)
	harness.Eventually(t, soon, "the second reload has begun", func() bool {
		return strings.Count(r.Stderr(), "the relay stops to start with them") == 2
	})
	r.Signal(syscall.SIGTERM)
	close(answer)
	require.Zero(t, r.Wait(soon))
	require.Equal(t, 2, db.epoch(), "there was no third relay")
	require.Zero(t, db.verify(id, receiver), "deliveries sent again")
}
