package truth

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/walhook/walhook/test/checker/history"
)

const (
	connectTimeout = 5 * time.Second
	closeTimeout   = time.Second
	// confirmInterval is how often the server is told how far we are and asked how far it is.
	confirmInterval = time.Second
	// silenceTimeout ends a connection on which the server answered nothing for so long.
	silenceTimeout = 30 * time.Second
)

// Create makes a logical slot with the plugin test_decoding. What is committed later is in it, so that it must
// come before anything is written. It waits for the transactions that run already.
func Create(ctx context.Context, url, slot string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("create slot %s: %w", slot, err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, "SELECT pg_create_logical_replication_slot($1, 'test_decoding')", slot); err != nil {
		return fmt.Errorf("create slot %s: %w", slot, err)
	}
	return nil
}

// message is one of the server's messages within COPY: a line of output with its position, or a keepalive with
// the position that the server has read the WAL to.
type message struct {
	data  bool
	lsn   history.LSN
	text  string
	reply bool // the server wants to hear from us at once
}

// link is a replication connection that streams. See "Streaming Replication Protocol" in Postgres's manual.
type link struct {
	conn        *pgconn.PgConn
	heard       time.Time // when the server last sent something
	nextConfirm time.Time
}

// open starts streaming from where the slot is. Asking for 0/0 means that: the server never starts before what
// was confirmed, and nothing is confirmed that was not read.
func open(ctx context.Context, url, slot string) (*link, error) {
	config, err := pgconn.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("connect for replication: %w", err)
	}
	config.ConnectTimeout = connectTimeout
	for name, value := range map[string]string{
		"replication": "database", "application_name": "checker truth",
		// The formats that the parser reads.
		"TimeZone": "UTC", "DateStyle": "ISO", "IntervalStyle": "postgres",
	} {
		config.RuntimeParams[name] = value
	}
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect for replication: %w", err)
	}
	l := &link{conn: conn, heard: time.Now()}
	if err := l.start(ctx, slot); err != nil {
		l.close()
		return nil, fmt.Errorf("start replication from slot %s: %w", slot, err)
	}
	return l, nil
}

func (l *link) start(ctx context.Context, slot string) error {
	ctx, cancel := context.WithTimeout(ctx, silenceTimeout)
	defer cancel()
	l.conn.Frontend().SendQuery(&pgproto3.Query{String: "START_REPLICATION SLOT " + pgx.Identifier{slot}.Sanitize() +
		` LOGICAL 0/0 ("include-xids" '1', "include-timestamp" '1')`})
	if err := l.conn.Frontend().Flush(); err != nil {
		return err
	}
	for {
		m, err := l.conn.ReceiveMessage(ctx)
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *pgproto3.CopyBothResponse:
			return nil
		case *pgproto3.ErrorResponse:
			return pgconn.ErrorResponseToPgError(m)
		}
	}
}

func (l *link) close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = l.conn.Close(ctx)
}

// receive waits for the next message, and confirms what was read once every interval meanwhile.
func (l *link) receive(ctx context.Context, read history.LSN) (message, error) {
	for {
		if !time.Now().Before(l.nextConfirm) {
			if err := l.confirm(read, true); err != nil {
				return message{}, err
			}
		}
		body, err := l.receiveUntil(ctx, l.nextConfirm)
		switch {
		case ctx.Err() != nil:
			return message{}, ctx.Err()
		case pgconn.Timeout(err) && time.Since(l.heard) < silenceTimeout:
			continue
		case err != nil:
			return message{}, fmt.Errorf("receive: %w", err)
		case body == nil:
			continue
		}
		l.heard = time.Now()
		return parseCopyData(body)
	}
}

// receiveUntil returns the content of the next CopyData message, and nil for a notice and the like.
func (l *link) receiveUntil(ctx context.Context, deadline time.Time) ([]byte, error) {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	m, err := l.conn.ReceiveMessage(ctx)
	if err != nil {
		return nil, err
	}
	switch m := m.(type) {
	case *pgproto3.CopyData:
		return m.Data, nil
	case *pgproto3.ErrorResponse:
		return nil, pgconn.ErrorResponseToPgError(m)
	case *pgproto3.CopyDone:
		return nil, errors.New("the server ended the stream")
	}
	return nil, nil
}

// confirm tells the server that everything up to a position was read, and asks for an answer if wanted.
func (l *link) confirm(read history.LSN, answer bool) error {
	const epoch = 946684800 // 2000-01-01 in Unix time: Postgres counts microseconds from there
	body := []byte{'r'}
	for range 3 { // written, flushed and applied
		body = binary.BigEndian.AppendUint64(body, uint64(read))
	}
	body = binary.BigEndian.AppendUint64(body, uint64(time.Now().UnixMicro()-epoch*1e6))
	body = append(body, 0)
	if answer {
		body[len(body)-1] = 1
	}
	l.conn.Frontend().Send(&pgproto3.CopyData{Data: body})
	if err := l.conn.Frontend().Flush(); err != nil {
		return fmt.Errorf("confirm %s: %w", read, err)
	}
	l.nextConfirm = time.Now().Add(confirmInterval)
	return nil
}

// parseCopyData copies what it returns: the connection uses the bytes again.
func parseCopyData(body []byte) (message, error) {
	const dataHeader, keepaliveSize = 1 + 8 + 8 + 8, 1 + 8 + 8 + 1
	switch {
	case len(body) >= dataHeader && body[0] == 'w':
		return message{data: true, lsn: position(body[1:]), text: string(body[dataHeader:])}, nil
	case len(body) == keepaliveSize && body[0] == 'k':
		return message{lsn: position(body[1:]), reply: body[keepaliveSize-1] != 0}, nil
	}
	return message{}, fmt.Errorf("%w: replication message %.100q", errOutput, body)
}

func position(b []byte) history.LSN { return history.LSN(binary.BigEndian.Uint64(b)) }
