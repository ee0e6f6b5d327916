package stream_test

import (
	"encoding/binary"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/stream"
	"github.com/walhook/walhook/test/harness"
)

// limit sets how long the server waits for the client, for sessions of the source's database.
func (s *source) limit(t *testing.T, timeout string) {
	t.Helper()
	u, err := url.Parse(s.options.URL)
	require.NoError(t, err)
	s.exec(t, "ALTER DATABASE "+strings.TrimPrefix(u.Path, "/")+" SET wal_sender_timeout = '"+timeout+"'")
}

// The server is told within half of what it waits, and often enough that silence means something.
func TestStatusInterval(t *testing.T) {
	t.Parallel()
	s := newSource(t, harness.Database(t))
	for _, c := range []struct {
		timeout    string
		configured time.Duration
		want       time.Duration
	}{
		{"60s", time.Second, time.Second},
		{"60s", time.Minute, 5 * time.Second}, // a third of what counts as silence
		{"4s", 3 * time.Second, 2 * time.Second},
		{"0", 3 * time.Second, 3 * time.Second}, // the server waits for ever and never asks
		{"0", time.Minute, 5 * time.Second},
	} {
		s.limit(t, c.timeout)
		s.options.StatusInterval = c.configured
		conn := s.open(t, s.options.URL, delivery.Position{})
		require.Equal(t, c.want, conn.Interval(), "wal_sender_timeout %s, status interval %s", c.timeout, c.configured)
		conn.Close()
	}
}

// An idle stream says regularly where it stands and asks for an answer. It never claims to have more than
// was confirmed.
func TestIdleStreamReportsRegularly(t *testing.T) {
	t.Parallel()
	s := newSource(t, harness.Database(t))
	s.options.StatusInterval = 50 * time.Millisecond
	l, through := newLink(t, s.options.URL)
	conn := s.open(t, through, delivery.Position{})
	s.exec(t, "SELECT outbox.publish('a', '{}')")
	_, err := collect(conn, 1)
	require.NoError(t, err)
	_, err = conn.Receive(500 * time.Millisecond)
	require.NoError(t, err)
	var last time.Time
	n := len(l.statuses)
	require.GreaterOrEqual(t, n, 5)
	for range n {
		got := <-l.statuses
		require.Equal(t, s.from, got.flush, "nothing was confirmed")
		if !got.ask {
			continue // the answer to a keepalive that asked
		}
		require.GreaterOrEqual(t, got.at.Sub(last), 40*time.Millisecond, "not more often than needed")
		last = got.at
	}
	require.False(t, last.IsZero(), "no status asked for an answer")
}

// Whoever waits for something else keeps the link alive with Tick. The server, which gives up after half a
// second here, stays.
func TestTickKeepsTheServerWaiting(t *testing.T) {
	t.Parallel()
	s := newSource(t, harness.Database(t))
	s.limit(t, "500ms")
	conn := s.open(t, s.options.URL, delivery.Position{})
	s.exec(t, "SELECT outbox.publish('a', '{}')")
	for until := time.Now().Add(1500 * time.Millisecond); time.Now().Before(until); {
		time.Sleep(time.Until(conn.StatusDue()))
		require.NoError(t, conn.Tick())
	}
	items, err := collect(conn, 1)
	require.NoError(t, err)
	require.Equal(t, "a ", summary(items))
}

// A newly confirmed position does not wait for the next regular status, is exact, and never goes back.
func TestConfirmedPositionIsToldAtOnce(t *testing.T) {
	t.Parallel()
	s := newSource(t, harness.Database(t))
	conn := s.open(t, s.options.URL, delivery.Position{})
	_, err := conn.Receive(10 * time.Millisecond) // the first regular status
	require.NoError(t, err)
	s.exec(t, "SELECT outbox.publish('a', '{}')")
	s.exec(t, "SELECT outbox.publish('b', '{}')")
	items, err := collect(conn, 2)
	require.NoError(t, err)
	for _, end := range []delivery.LSN{items[1].Position.LSN, items[3].Position.LSN} {
		conn.Confirm(end)
		conn.Confirm(s.from)
		_, err := conn.Receive(10 * time.Millisecond)
		require.NoError(t, err)
		require.Equal(t, end, conn.Confirmed())
		harness.Eventually(t, 2*time.Second, "the slot stands where it was told", func() bool { return s.confirmed(t) >= end })
		require.Equal(t, end, s.confirmed(t))
	}
}

// The last position is told when the stream is closed: it would come again otherwise.
func TestCloseTellsTheLastPosition(t *testing.T) {
	t.Parallel()
	s := newSource(t, harness.Database(t))
	conn := s.open(t, s.options.URL, delivery.Position{})
	s.exec(t, "SELECT outbox.publish('a', '{}')")
	items, err := collect(conn, 1)
	require.NoError(t, err)
	conn.Confirm(items[1].Position.LSN)
	require.Equal(t, s.from, s.confirmed(t))
	conn.Close()
	harness.Eventually(t, 2*time.Second, "the slot moves", func() bool { return s.confirmed(t) == items[1].Position.LSN })
}

// An idle position lies behind everything received and moves with WAL that is not ours; while a transaction
// is under way there is none.
func TestIdlePosition(t *testing.T) {
	t.Parallel()
	s := newSource(t, harness.Database(t))
	s.options.StatusInterval = 20 * time.Millisecond
	conn := s.open(t, s.options.URL, delivery.Position{})
	s.exec(t, "SELECT outbox.publish('a', '{}')")
	items, err := collect(conn, 1)
	require.NoError(t, err)
	idle := func() (lsn delivery.LSN) {
		batch, err := conn.Receive(20 * time.Millisecond)
		require.NoError(t, err)
		return batch.Idle
	}
	harness.Eventually(t, 5*time.Second, "idle behind the event", func() bool { return idle() >= items[1].Position.LSN })
	s.exec(t, "CREATE TABLE elsewhere AS SELECT g FROM generate_series(1, 1000) AS g")
	var text string
	require.NoError(t, s.db.QueryRow(t.Context(), "SELECT pg_current_wal_lsn()::text").Scan(&text))
	now, err := delivery.ParseLSN(text)
	require.NoError(t, err)
	harness.Eventually(t, 5*time.Second, "idle behind what others wrote", func() bool { return idle() >= now })

	// A transaction of more items than one Receive returns is open after the first.
	s.exec(t, "INSERT INTO outbox.events (type) SELECT 'b' FROM generate_series(1, 2000)")
	for got := 0; got < 2001; {
		batch, err := conn.Receive(time.Second)
		require.NoError(t, err)
		got += len(batch.Items)
		if got > 0 && got < 2001 {
			require.Zero(t, batch.Idle, "after %d of 2000 rows", got)
		}
	}
}

// A link on which nothing comes any more is noticed although no error ever does; one that is only quiet lives.
// Where only nothing goes, the server may go on talking: it is its wal_sender_timeout that ends the stream.
func TestDeadLinkIsNoticed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		sever func(l *link)
		want  error
	}{
		{"quiet", func(*link) {}, nil},
		{"nothing comes", func(l *link) { l.down.Limit(0) }, stream.ErrSilent},
		{"nothing comes and nothing goes", func(l *link) { l.down.Limit(0); l.up.Limit(0) }, stream.ErrSilent},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSource(t, harness.Database(t))
			s.options.StatusInterval = 50 * time.Millisecond
			l, through := newLink(t, s.options.URL)
			conn := s.open(t, through, delivery.Position{})
			_, err := conn.Receive(100 * time.Millisecond)
			require.NoError(t, err)
			c.sever(l)
			_, err = conn.Receive(300 * time.Millisecond)
			require.NoError(t, err, "it is too early to say")
			conn.Age(14500 * time.Millisecond)
			_, err = conn.Receive(time.Second)
			require.ErrorIs(t, err, c.want)
		})
	}
}

// While the relay waits for room it does not read, so what it did not hear is no silence.
func TestNotListeningIsNoSilence(t *testing.T) {
	t.Parallel()
	s := newSource(t, harness.Database(t))
	s.options.StatusInterval = 10 * time.Millisecond
	conn := s.open(t, s.options.URL, delivery.Position{})
	conn.Age(time.Minute)
	time.Sleep(time.Until(conn.StatusDue()))
	require.NoError(t, conn.Tick())
	_, err := conn.Receive(100 * time.Millisecond)
	require.NoError(t, err)
}

// A write that nobody takes ends by itself.
func TestBrokenLinkIsAnError(t *testing.T) {
	t.Parallel()
	s := newSource(t, harness.Database(t))
	l, through := newLink(t, s.options.URL)
	conn := s.open(t, through, delivery.Position{})
	l.Cut()
	require.ErrorContains(t, failure(t, conn), "replication stream")
}

// Messages arrive in pieces, with pauses between them: nothing is read twice, lost or taken for whole.
func TestMessagesInPieces(t *testing.T) {
	t.Parallel()
	s := newSource(t, harness.Database(t))
	l, through := newLink(t, s.options.URL)
	conn := s.open(t, through, delivery.Position{})
	_, err := conn.Receive(100 * time.Millisecond)
	require.NoError(t, err)
	l.down.Limit(0)
	s.exec(t, `SELECT outbox.publish('a', jsonb_build_object('x', repeat('x', 3000)))`)
	s.exec(t, `SELECT outbox.publish('b', '{}')`)
	var items []delivery.Item
	for pieces := 0; len(items) < 4; pieces++ {
		require.Less(t, pieces, 1000, "only %q came", summary(items))
		l.down.Limit(97)
		batch, err := conn.Receive(2 * time.Millisecond)
		require.NoError(t, err)
		items = append(items, batch.Items...)
	}
	require.Equal(t, "a b ", summary(items))
	require.Len(t, items[0].Event.Payload, len(`{"x": ""}`)+3000)
}

// Wherever the connection breaks, what came before is a whole prefix, and the rest comes over the next one.
func TestBreakAtAnyByte(t *testing.T) {
	t.Parallel()
	const want = "00 11 22 "
	s := newSource(t, harness.Database(t))
	l, through := newLink(t, s.options.URL)
	broken := 0
	for n := 1; ; n += 97 {
		conn := s.open(t, through, delivery.Position{LSN: s.from})
		_, err := conn.Receive(20 * time.Millisecond) // what comes before any row
		require.NoError(t, err)
		l.down.Limit(n)
		for i := range 3 {
			s.exec(t, `SELECT outbox.publish($1, '{"x": "y"}'), outbox.emit($1, '{}')`, fmt.Sprint(i))
		}
		got := untilQuiet(t, conn)
		l.Cut()
		l.down.Open()
		require.Error(t, failure(t, conn))
		conn.Close()
		require.True(t, strings.HasPrefix(want, summary(got)), "%q is no prefix", summary(got))
		if len(got) == len(want) {
			break // the link broke behind them
		}
		broken++
		skip := delivery.Position{LSN: s.from}
		if len(got) > 0 {
			skip = got[len(got)-1].Position
		}
		conn = s.open(t, through, skip)
		rest, err := collect(conn, strings.Count(want[len(got):], " "))
		require.NoError(t, err)
		require.Equal(t, want, summary(append(got, rest...)), "broken after %d bytes", n)
		s.from = rest[len(rest)-1].Position.LSN
		conn.Confirm(s.from)
		conn.Close()
	}
	require.Greater(t, broken, 6)
}

// untilQuiet receives until nothing more comes.
func untilQuiet(t *testing.T, conn *stream.Conn) (items []delivery.Item) {
	for quiet := 0; quiet < 2; quiet++ {
		batch, err := conn.Receive(10 * time.Millisecond)
		require.NoError(t, err)
		if len(batch.Items) > 0 {
			items, quiet = append(items, batch.Items...), -1
		}
	}
	return items
}

// A server that shuts down waits until its last position is confirmed. It says so, and the stream ends.
func TestShutdownIsUrgent(t *testing.T) {
	t.Parallel()
	server := harness.StartServer(t, "", nil)
	_, err := harness.Connect(t, server.URL("postgres")).Exec(t.Context(), "CREATE DATABASE app")
	require.NoError(t, err)
	s := newSource(t, migrated(t, server.URL("app")))
	conn := s.open(t, s.options.URL, delivery.Position{})
	s.exec(t, "SELECT outbox.publish('a', '{}')")
	s.db.Close()
	for begun := false; !begun; { // a sender that has not begun to send is just ended
		batch, err := conn.Receive(100 * time.Millisecond)
		require.NoError(t, err)
		begun = len(batch.Items) > 0
	}
	stopped := make(chan error, 1)
	began := time.Now()
	go func() { stopped <- server.Stop("fast") }()
	urgent := false
	for {
		batch, err := conn.Receive(100 * time.Millisecond)
		if err != nil {
			break
		}
		if batch.Urgent {
			urgent = true
			conn.Confirm(batch.Idle)
		}
		require.Less(t, time.Since(began), 10*time.Second, "the server goes on")
	}
	conn.Close()
	require.NoError(t, <-stopped)
	require.True(t, urgent)
	require.Less(t, time.Since(began), 5*time.Second)
}

// notice is a NoticeResponse as the server writes it.
func notice(code, text, routine string) []byte {
	body := "SWARNING\x00VWARNING\x00C" + code + "\x00M" + text + "\x00R" + routine + "\x00\x00"
	return append(binary.BigEndian.AppendUint32([]byte{'N'}, uint32(len(body)+4)), body...)
}

// Postgres 18 goes on without the rows of a missing publication and says so only in a notice; other notices
// are nothing to stop for.
func TestNotices(t *testing.T) {
	t.Parallel()
	s := newSource(t, harness.Database(t))
	l, through := newLink(t, s.options.URL)
	conn := s.open(t, through, delivery.Position{})
	_, err := conn.Receive(100 * time.Millisecond)
	require.NoError(t, err)
	for _, harmless := range [][]byte{
		notice("01000", "nothing much", "Anything"),
		// A standby in synchronized_standby_slots is away: the server waits for it.
		notice("55000", `replication slot "standby" specified in parameter "synchronized_standby_slots" does not have active_pid`, "StandbySlotsHaveCaughtup"),
	} {
		l.Say(t, harmless)
		_, err = conn.Receive(100 * time.Millisecond)
		require.NoError(t, err)
	}
	l.Say(t, notice("55000", `skipped loading publication "walhook_events"`, "LoadPublications"))
	err = failure(t, conn)
	require.ErrorIs(t, err, stream.ErrPublication)
	require.ErrorContains(t, err, `skipped loading publication "walhook_events"`)
}
