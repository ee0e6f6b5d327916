// Package stream owns the replication connection: it reads transactions in commit order, answers the
// server in time, and tells it which positions are no longer needed.
package stream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/rs/zerolog"

	"github.com/walhook/walhook/internal/fault"
	"github.com/walhook/walhook/relay/delivery"
)

// Options say what to read.
type Options struct {
	URL            string        // connection string of the database
	Slot           string        // replication slot
	Publications   []string      // what the slot decodes
	ConnectTimeout time.Duration // for everything until the stream runs
	StatusInterval time.Duration // at most this long between two messages to the server
	Items          int           // at most so many in a Batch; 0: 512
	Log            zerolog.Logger
}

// silence is how long the link may be without a byte: every status asks for a reply, so more means that
// the other side is gone.
const silence = 15 * time.Second

// batchItems bounds how many items one Receive returns, where nobody asks for fewer.
const batchItems = 512

// ErrSilent means that the server has not answered for 15 seconds.
var ErrSilent = errors.New("no byte from the server for 15 s although every status asks for a reply")

// ErrPublication means that the server found a publication missing. Postgres 18 says so only in a notice
// and goes on without the publication's rows.
var ErrPublication = errors.New("a publication is missing: run walhook init")

// Conn is a running replication stream. It has one owner: nothing of it is safe for concurrent use.
type Conn struct {
	System System // the server that the stream comes from

	pg       *pgconn.PgConn
	fe       *pgproto3.Frontend
	decoder  *Decoder
	log      zerolog.Logger
	interval time.Duration

	most      int // items in a Batch
	items     []delivery.Item
	confirmed delivery.LSN // what the server may forget
	reported  delivery.LSN // what it was told
	serverEnd delivery.LSN // end of the WAL as of the last message
	askedIdle bool         // the last keepalive wanted a reply
	lastRead  time.Time
	nextSend  time.Time
}

// Batch is what one Receive returns. Items is valid until the next Receive.
type Batch struct {
	Items []delivery.Item
	// Idle is a position up to which the server has nothing more for us, when no transaction is open; 0
	// otherwise. It may be confirmed once everything received is recorded.
	Idle delivery.LSN
	// Urgent means that the server waits for its position to be confirmed, as it does when it shuts down.
	Urgent bool
	// Heartbeats are the contents of the transactional messages with HeartbeatPrefix that came, in commit order. They are
	// no items: nothing of them is recorded.
	Heartbeats []string
	// XID is the transaction of the last of Items, in the lower half of its id.
	XID uint32
}

// Start opens the stream at confirmed, which is durably recorded and must not be zero: the server begins
// there or at what the slot has confirmed, whichever is later, and what it sends again at or before skip
// is dropped. SQLSTATE 55006 means that another relay has the slot.
func Start(ctx context.Context, o Options, confirmed delivery.LSN, skip delivery.Position) (*Conn, error) {
	if confirmed == 0 {
		return nil, errors.New("start replication: no durable position is known; run walhook init")
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.ConnectTimeout, errors.New("start replication: timed out"))
	defer cancel()
	pg, err := Connect(ctx, o.URL)
	if err != nil {
		return nil, err
	}
	c := &Conn{pg: pg, fe: pg.Frontend(), log: o.Log, most: o.Items, confirmed: confirmed, reported: confirmed}
	if c.most == 0 {
		c.most = batchItems
	}
	if err := c.start(ctx, o, skip); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *Conn) start(ctx context.Context, o Options, skip delivery.Position) error {
	var err error
	if c.System, err = identify(ctx, c.pg); err != nil {
		return err
	}
	tables, timeout, err := inspect(ctx, c.pg)
	if err != nil {
		return err
	}
	c.interval = o.StatusInterval
	if timeout > 0 {
		c.interval = min(c.interval, timeout/2)
	}
	c.interval = min(c.interval, silence/3)
	c.decoder = NewDecoder(tables, skip)
	c.decoder.Complain = func(p delivery.Position, problem string) {
		c.log.Error().Stringer("position", p).Str("problem", problem).Msg("logical message is no event, left out")
	}
	names := strings.Join(o.Publications, ",")
	err = pglogrepl.StartReplication(ctx, c.pg, o.Slot, pglogrepl.LSN(c.confirmed), pglogrepl.StartReplicationOptions{
		PluginArgs: []string{"proto_version '1'", "publication_names '" + names + "'", "messages 'true'", "binary 'true'"},
	})
	if err != nil {
		return fmt.Errorf("start replication from slot %s: %w", o.Slot, err)
	}
	fault.Point(fault.StreamStarted)
	now := time.Now()
	c.lastRead, c.nextSend = now, now
	return nil
}

// Resume corrects where to begin, after Start and before the first Receive.
func (c *Conn) Resume(confirmed delivery.LSN, skip delivery.Position) {
	c.confirmed, c.decoder.skip = max(c.confirmed, confirmed), skip
}

// Connect opens a replication connection, which understands SQL as well.
func Connect(ctx context.Context, url string) (*pgconn.PgConn, error) {
	cfg, err := pgconn.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("connection string: %w", err)
	}
	cfg.RuntimeParams["replication"] = "database"
	cfg.RuntimeParams["application_name"] = "walhook"
	cfg.RuntimeParams["client_encoding"] = "UTF8" // whatever the role or database sets: receivers get JSON
	// No time limit may break a stream off, or the snapshot of a new slot.
	Unlimited(cfg)
	pg, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open replication connection: %w", err)
	}
	return pg, nil
}

// Unlimited lifts the time limits that a role or database has for its sessions: what the relay's process does takes as
// long as it takes.
func Unlimited(cfg *pgconn.Config) {
	for _, name := range []string{"statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout"} {
		cfg.RuntimeParams[name] = "0"
	}
	// Postgres 17 brought this one, and older servers refuse a session that names it.
	cfg.AfterConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
		return conn.Exec(ctx, "SELECT set_config('transaction_timeout', '0', false) WHERE current_setting('transaction_timeout', true) <> '0'").Close()
	}
}

// inspect asks for the tables' OIDs and for how long the server waits for us.
func inspect(ctx context.Context, pg *pgconn.PgConn) (Tables, time.Duration, error) {
	results, err := pg.Exec(ctx, `SELECT 'outbox.events'::regclass::oid, 'outbox.subscriptions'::regclass::oid,
		(SELECT setting FROM pg_settings WHERE name = 'wal_sender_timeout')`).ReadAll()
	if err != nil {
		return Tables{}, 0, fmt.Errorf("find the outbox tables: %w", err)
	}
	row := results[0].Rows[0]
	events, err1 := strconv.ParseUint(string(row[0]), 10, 32)
	subscriptions, err2 := strconv.ParseUint(string(row[1]), 10, 32)
	ms, err3 := strconv.ParseInt(string(row[2]), 10, 64)
	if err := errors.Join(err1, err2, err3); err != nil {
		return Tables{}, 0, fmt.Errorf("find the outbox tables: %w", err)
	}
	return Tables{Events: uint32(events), Subscriptions: uint32(subscriptions)}, time.Duration(ms) * time.Millisecond, nil
}

// Receive waits for items, at most for wait, and returns what has come, which may be nothing. Messages to
// the server are sent when they are due. Any error ends the stream: Close it and start again.
func (c *Conn) Receive(wait time.Duration) (Batch, error) {
	c.items, c.askedIdle, c.decoder.heartbeats = c.items[:0], false, nil
	now := time.Now()
	until := now.Add(wait)
	if err := c.tick(now); err != nil { // under load the buffer may never be empty
		return Batch{}, err
	}
	for len(c.items) < c.most {
		if c.fe.ReadBufferLen() == 0 {
			if len(c.items) > 0 {
				break
			}
			now = time.Now()
			if err := c.tick(now); err != nil {
				return Batch{}, err
			}
			if err := c.pg.Conn().SetReadDeadline(earlier(until, c.nextSend)); err != nil {
				return Batch{}, fmt.Errorf("set read deadline: %w", err)
			}
		}
		m, err := c.fe.Receive() // after a timeout in the middle of a message it goes on where it was
		if timedOut(err) {
			if !time.Now().Before(until) {
				break
			}
			if err := c.tick(time.Now()); err != nil {
				return Batch{}, err
			}
			if err := c.pg.Conn().SetReadDeadline(earlier(until, c.nextSend)); err != nil {
				return Batch{}, fmt.Errorf("set read deadline: %w", err)
			}
			continue
		}
		if err != nil {
			return Batch{}, fmt.Errorf("read replication stream: %w", err)
		}
		c.lastRead = now
		done, err := c.handle(m)
		if err != nil {
			return Batch{}, err
		}
		if done {
			break
		}
	}
	b := Batch{Items: c.items, Urgent: c.askedIdle, Heartbeats: c.decoder.heartbeats, XID: c.decoder.xid}
	if !c.decoder.Open() {
		b.Idle = c.serverEnd
	}
	return b, nil
}

// handle takes one message and reports whether the caller should look at it now.
func (c *Conn) handle(m pgproto3.BackendMessage) (bool, error) {
	switch m := m.(type) {
	case *pgproto3.CopyData:
		return c.data(m.Data)
	case *pgproto3.ErrorResponse:
		return false, fmt.Errorf("replication stream: %w", pgconn.ErrorResponseToPgError(m))
	case *pgproto3.NoticeResponse:
		return false, c.notice(m)
	case *pgproto3.CopyDone:
		return false, errors.New("replication stream: the server ended it")
	}
	return false, nil // parameter status and the like
}

func (c *Conn) notice(m *pgproto3.NoticeResponse) error {
	c.log.Warn().Str("severity", m.Severity).Str("code", m.Code).Str("notice", m.Message).Msg("notice on the replication stream")
	// The server waits for a standby in synchronized_standby_slots that is away (Postgres 17), and says so with the same code.
	if m.Code == "55000" && m.Routine != "StandbySlotsHaveCaughtup" {
		return fmt.Errorf("%w (the server says: %s)", ErrPublication, m.Message)
	}
	return nil
}

func (c *Conn) data(b []byte) (bool, error) {
	if len(b) == 0 {
		return false, fmt.Errorf("copy data: %w", errShort)
	}
	r := reader{b: b[1:]}
	switch b[0] {
	case pglogrepl.XLogDataByteID:
		// Where the data begin, the server's end and clock: none of them is a position that may be confirmed
		// (pglogrepl pull request 59).
		if r.take(24); r.err != nil {
			return false, fmt.Errorf("copy data: %w", r.err)
		}
		fault.Point(fault.StreamReceived)
		var err error
		c.items, err = c.decoder.Decode(c.items, r.b)
		c.serverEnd = max(c.serverEnd, c.decoder.passed)
		return false, err
	case pglogrepl.PrimaryKeepaliveMessageByteID:
		end := delivery.LSN(r.uint64())
		r.uint64()
		reply := r.byte() == 1
		if r.err != nil {
			return false, fmt.Errorf("keepalive: %w", r.err)
		}
		c.serverEnd = max(c.serverEnd, end)
		if reply {
			c.askedIdle = true
			return true, c.Status(false)
		}
		return false, nil
	}
	return false, fmt.Errorf("copy data of unknown kind %q", b[0])
}

// Confirm notes that everything before lsn is durably recorded. The server is told with the next status;
// positions never go backwards.
func (c *Conn) Confirm(lsn delivery.LSN) { c.confirmed = max(c.confirmed, lsn) }

// Confirmed is the position that the server was told last.
func (c *Conn) Confirmed() delivery.LSN { return c.reported }

// StatusDue is when the next message to the server is due. Whoever doesn't call Receive calls Tick by then.
func (c *Conn) StatusDue() time.Time { return c.nextSend }

// Tick sends a status when one is due, without reading.
func (c *Conn) Tick() error {
	now := time.Now()
	if now.Before(c.nextSend) {
		return nil
	}
	c.lastRead = now // nobody has looked whether the server wrote
	return c.Status(true)
}

// tick sends what is due: the regular status, or a newly confirmed position.
func (c *Conn) tick(now time.Time) error {
	if now.Sub(c.lastRead) > silence {
		return ErrSilent
	}
	if c.confirmed > c.reported {
		return c.Status(false)
	}
	if !now.Before(c.nextSend) {
		return c.Status(true)
	}
	return nil
}

// Status tells the server what is confirmed, now.
func (c *Conn) Status(ask bool) error {
	now := time.Now()
	// SendStandbyStatusUpdate ignores its context; the socket's deadline doesn't.
	if err := c.pg.Conn().SetWriteDeadline(now.Add(c.interval)); err != nil {
		return fmt.Errorf("set write deadline: %w", err)
	}
	at := pglogrepl.LSN(c.confirmed)
	status := pglogrepl.StandbyStatusUpdate{WALWritePosition: at, WALFlushPosition: at, WALApplyPosition: at, ReplyRequested: ask}
	if fault.Bug(fault.ZeroFlush) {
		status.WALWritePosition, status.WALFlushPosition = pglogrepl.LSN(max(c.confirmed, c.serverEnd)), 0
	}
	fault.PointIf(c.confirmed > c.reported, fault.StreamStatusBefore)
	if err := pglogrepl.SendStandbyStatusUpdate(context.Background(), c.pg, status); err != nil {
		return fmt.Errorf("send status: %w", err)
	}
	fault.PointIf(c.confirmed > c.reported, fault.StreamStatusAfter)
	c.reported = c.confirmed
	if ask {
		c.nextSend = now.Add(c.interval)
	}
	return nil
}

// Close sends what is confirmed and not yet told, and ends the connection.
func (c *Conn) Close() {
	if c.decoder != nil && c.confirmed > c.reported {
		_ = c.Status(false) // the stream may be broken already; the checkpoint holds the position
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = c.pg.Close(ctx)
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func timedOut(err error) bool {
	var netErr net.Error
	return err != nil && errors.As(err, &netErr) && netErr.Timeout()
}
