package acceptance_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// rowsVariable makes the huge transaction larger than the suite has time for.
const rowsVariable = "WALHOOK_TEST_HUGE_ROWS"

// One huge transaction goes through a relay whose memory is bounded, by the number of deliveries and by
// their size. Killed in the middle, it goes on in the middle: the checkpoint counts within the transaction.
func TestHugeTransaction(t *testing.T) {
	many := 200_000
	if text := os.Getenv(rowsVariable); text != "" {
		var err error
		many, err = strconv.Atoi(text)
		require.NoError(t, err, rowsVariable)
	}
	program := buildPlain(t)
	for name, tt := range map[string]struct {
		rows, size int // of the payloads, in bytes
		unrecorded int // deliveries that memory may hold: 8192, and 32 MB of payloads
	}{
		"many rows":  {many, 20, 8192},
		"large rows": {2000, 100_000, 32<<20/100_000 + 1},
	} {
		t.Run(name, func(t *testing.T) {
			hugeTransaction(t, program, tt.rows, tt.size, tt.unrecorded)
		})
	}
}

func hugeTransaction(t *testing.T, program string, rows, size, unrecorded int) {
	const peak = 150 << 10 // kB
	within := time.Minute * time.Duration(1+rows/200_000)
	db := newDatabase(t)
	db.cli = program
	receiver := newCounter(t)
	db.subscribe(receiver.url, "payload_format", "'raw'", "max_in_flight", "64")
	// On a busy machine the receiver may be too slow, and then the rest of the transaction goes to the queue,
	// where this test is not looking.
	r := db.start("--delivery-spill-after", "5m")

	tx, err := db.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `INSERT INTO outbox.events (type, payload)
		SELECT 'test.event', jsonb_build_object('n', g, 'text', repeat('x', $2)) FROM generate_series(1, $1) AS g`, rows, size)
	require.NoError(t, err)
	require.Zero(t, receiver.requests(), "requests before the commit")
	require.NoError(t, tx.Commit(t.Context()))

	receiver.wait(t, rows/2, within)
	require.Less(t, peakMemory(t, r.PID()), peak, "kB of memory at most")
	r.Kill()
	require.Less(t, receiver.requests(), rows, "killed too late")
	require.Positive(t, ask[int](db, "SELECT index FROM outbox.checkpoint"), "the checkpoint stands within the transaction")

	r = db.start()
	db.settled(within)
	high := peakMemory(t, r.PID())
	require.Less(t, high, peak, "kB of memory at most")
	r.terminate(soon)
	t.Logf("%d rows, %d repeats, %d MB at most", rows, receiver.requests()-receiver.distinct(), high>>10)
	require.Equal(t, rows, receiver.distinct(), "distinct deliveries received")
	require.LessOrEqual(t, receiver.requests()-rows, unrecorded, "repeats")
	require.Equal(t, rows, ask[int](db, "SELECT count(DISTINCT delivery_id) FROM outbox.attempts WHERE error IS NULL"))
	require.Equal(t, rows, ask[int](db, "SELECT count(*) FROM outbox.attempts"), "attempts recorded")
}

// buildPlain builds walhook without -race, which takes ten times the memory and says nothing about it.
func buildPlain(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "walhook")
	output, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "github.com/walhook/walhook/cmd/walhook").CombinedOutput()
	require.NoError(t, err, string(output))
	return program
}

// peakMemory is the most memory that the process ever had, in kB: VmHWM of proc(5).
func peakMemory(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(t, err)
	_, text, found := strings.Cut(string(status), "VmHWM:")
	require.True(t, found, string(status))
	kB, err := strconv.Atoi(strings.Fields(text)[0])
	require.NoError(t, err)
	return kB
}

// counter is a receiver that keeps nothing but which ids came: net/http's server would be what limits the
// test. It answers every request with 200.
type counter struct {
	url string

	mu      sync.Mutex
	total   int
	ids     map[string]int
	goal    int
	arrived chan struct{} // closed when goal requests have come
}

func newCounter(t *testing.T) *counter {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c := &counter{url: "http://" + listener.Addr().String(), ids: map[string]int{}}
	var served sync.WaitGroup
	served.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // closed: the test is over, and so are the relays
			}
			served.Go(func() { c.serve(conn) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		served.Wait()
	})
	return c
}

// serve reads requests until the relay closes the connection or dies. What is not HTTP ends the connection,
// which the relay takes for a failed attempt.
func (c *counter) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	r := bufio.NewReader(conn)
	for {
		id, length, err := readHead(r)
		if err != nil {
			return
		}
		if _, err := r.Discard(length); err != nil {
			return
		}
		c.count(id)
		if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"); err != nil {
			return
		}
	}
}

// readHead reads a request up to its body and returns its id and the body's length.
func readHead(r *bufio.Reader) (id string, length int, err error) {
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return "", 0, err
		}
		name, value, _ := strings.Cut(strings.TrimRight(line, "\r\n"), ": ")
		switch strings.ToLower(name) {
		case "":
			return id, length, nil
		case "x-webhook-id":
			id = value
		case "content-length":
			if length, err = strconv.Atoi(value); err != nil {
				return "", 0, err
			}
		}
	}
}

func (c *counter) count(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total++
	c.ids[id]++
	if c.arrived != nil && c.total >= c.goal {
		close(c.arrived)
		c.arrived = nil
	}
}

func (c *counter) requests() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.total
}

func (c *counter) distinct() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.ids)
}

// wait blocks until n requests have come.
func (c *counter) wait(t *testing.T, n int, within time.Duration) {
	t.Helper()
	arrived := make(chan struct{})
	c.mu.Lock()
	if c.total >= n {
		close(arrived)
	} else {
		c.goal, c.arrived = n, arrived
	}
	c.mu.Unlock()
	select {
	case <-arrived:
	case <-time.After(within):
		t.Fatalf("%d of %d requests within %s", c.requests(), n, within)
	}
}
