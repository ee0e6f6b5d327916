package record

import (
	"encoding/binary"
	"io"
	"math"
	"sync"
	"time"

	"github.com/google/uuid"
)

// copyRows writes rows in Postgres's binary COPY format (PostgreSQL documentation, COPY, "Binary Format").
// The record transaction is the price of every delivery; this is the cheapest way in.
type copyRows struct{ b []byte }

// copyBuffer is how much is encoded at a time. A larger row is encoded whole.
const copyBuffer = 64 << 10

// copyReader encodes rows as they are read, so that a batch costs no more memory than its largest row: events
// of megabytes for many subscriptions that all fail would otherwise take gigabytes.
type copyReader struct {
	mu   sync.Mutex
	rows *copyRows
	row  func(int) // encodes a row
	n    int
	next int // row to encode; n is the trailer, and more than n the end
	sent int // of rows.b
}

// newCopyReader reads n rows, encoded into the given buffer.
func newCopyReader(rows *copyRows, n int, row func(int)) *copyReader {
	rows.begin()
	return &copyReader{rows: rows, row: row, n: n}
}

// Read fills p, if there is as much left.
func (c *copyReader) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	done := 0
	for done < len(p) {
		if c.sent == len(c.rows.b) {
			c.rows.b, c.sent = c.rows.b[:0], 0
			if !c.fill() {
				break
			}
		}
		m := copy(p[done:], c.rows.b[c.sent:])
		done, c.sent = done+m, c.sent+m
	}
	if done == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return done, nil
}

// fill encodes what comes next and reports whether there was something.
func (c *copyReader) fill() bool {
	for ; c.next < c.n && len(c.rows.b) < copyBuffer; c.next++ {
		c.row(c.next)
	}
	if c.next == c.n && len(c.rows.b) < copyBuffer {
		c.rows.end()
		c.next++
	}
	return len(c.rows.b) > 0
}

// close ends the reading: a COPY that failed may still have a goroutine that reads.
func (c *copyReader) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next, c.rows = c.n+1, &copyRows{}
	c.sent = 0
}

var copySignature = []byte("PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00")

func (c *copyRows) begin() { c.b = append(c.b[:0], copySignature...) }

func (c *copyRows) end() { c.b = binary.BigEndian.AppendUint16(c.b, 0xffff) }

func (c *copyRows) row(columns int) { c.b = binary.BigEndian.AppendUint16(c.b, uint16(columns)) }

func (c *copyRows) null() { c.b = binary.BigEndian.AppendUint32(c.b, 0xffffffff) }

func (c *copyRows) uuid(id uuid.UUID) {
	c.b = binary.BigEndian.AppendUint32(c.b, 16)
	c.b = append(c.b, id[:]...)
}

// optionalUUID writes the zero id as null.
func (c *copyRows) optionalUUID(id uuid.UUID) {
	if id == uuid.Nil {
		c.null()
		return
	}
	c.uuid(id)
}

func (c *copyRows) text(s string) {
	c.b = binary.BigEndian.AppendUint32(c.b, uint32(len(s)))
	c.b = append(c.b, s...)
}

// optional writes the empty string as null.
func (c *copyRows) optional(s string) {
	if s == "" {
		c.null()
		return
	}
	c.text(s)
}

func (c *copyRows) bytes(b []byte) {
	c.b = binary.BigEndian.AppendUint32(c.b, uint32(len(b)))
	c.b = append(c.b, b...)
}

// jsonb writes JSON text with the version byte of jsonb's binary format.
func (c *copyRows) jsonb(b []byte) {
	if len(b) == 0 {
		b = []byte("{}")
	}
	c.b = binary.BigEndian.AppendUint32(c.b, uint32(len(b)+1))
	c.b = append(c.b, 1)
	c.b = append(c.b, b...)
}

func (c *copyRows) int16(n int) {
	c.b = binary.BigEndian.AppendUint32(c.b, 2)
	c.b = binary.BigEndian.AppendUint16(c.b, uint16(int16(n)))
}

func (c *copyRows) int32(n int) {
	c.b = binary.BigEndian.AppendUint32(c.b, 4)
	c.b = binary.BigEndian.AppendUint32(c.b, uint32(int32(n)))
}

func (c *copyRows) int64(n uint64) {
	c.b = binary.BigEndian.AppendUint32(c.b, 8)
	c.b = binary.BigEndian.AppendUint64(c.b, n)
}

func (c *copyRows) bool(v bool) {
	c.b = binary.BigEndian.AppendUint32(c.b, 1)
	if v {
		c.b = append(c.b, 1)
	} else {
		c.b = append(c.b, 0)
	}
}

// infinity writes the time that is later than all others.
func (c *copyRows) infinity() { c.int64(math.MaxInt64) }

var postgresEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()

func (c *copyRows) time(t time.Time) {
	if t.IsZero() {
		c.null()
		return
	}
	c.int64(uint64(t.UnixMicro() - postgresEpoch))
}
