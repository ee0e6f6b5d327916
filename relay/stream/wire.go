package stream

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// errShort means that a message ended early: Postgres never sends that, a broken peer might.
var errShort = errors.New("message is shorter than it says")

// reader walks a message of the logical replication protocol (PostgreSQL documentation, "Logical
// Replication Message Formats"). The first read past the end sets err, and every later read yields zero.
type reader struct {
	b   []byte
	err error
}

func (r *reader) take(n int) []byte {
	if r.err != nil || n < 0 || n > len(r.b) {
		r.err = errShort
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// string reads up to the zero byte that ends a string.
func (r *reader) string() string {
	n := bytes.IndexByte(r.b, 0)
	if n < 0 {
		r.err = errShort
		return ""
	}
	s := r.take(n + 1)
	return string(s[:max(len(s)-1, 0)])
}

func (r *reader) time() time.Time { return pgTime(int64(r.uint64())) }

// postgresEpoch is where Postgres begins to count microseconds.
var postgresEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()

// pgTime converts microseconds since 2000. The infinities, and what overflows, become the ends of what
// RFC 3339 can write.
func pgTime(us int64) time.Time {
	const year9999 = 252_455_615_999_999_999 // 9999-12-31 23:59:59.999999 in microseconds since 2000
	const year0001 = -63_082_281_600_000_000 // 0001-01-01 00:00:00
	return time.UnixMicro(min(max(us, year0001), year9999) + postgresEpoch).UTC()
}

// column is one value of a tuple. data points into the message.
type column struct {
	kind byte // 'n' null, 'u' unchanged and not sent, 't' text, 'b' binary
	data []byte
}

// tuple reads a row version into dst, which is reused.
func (r *reader) tuple(dst []column) []column {
	n := int(r.uint16())
	dst = dst[:0]
	for range n {
		c := column{kind: r.byte()}
		switch c.kind {
		case 'n', 'u':
		case 't', 'b':
			c.data = r.take(int(r.uint32()))
		default:
			r.err = fmt.Errorf("tuple column of unknown kind %q", c.kind)
		}
		if r.err != nil {
			return dst
		}
		dst = append(dst, c)
	}
	return dst
}

// uuid reads an id in either format.
func (c column) uuid() (uuid.UUID, error) {
	if c.kind == 'b' {
		return uuid.FromBytes(c.data)
	}
	return uuid.ParseBytes(c.data)
}

// text returns the value's bytes as text; for jsonb that leaves out the version byte of its binary format.
func (c column) text(jsonb bool) []byte {
	if jsonb && c.kind == 'b' && len(c.data) > 0 {
		return c.data[1:]
	}
	return c.data
}

func (c column) bool() bool {
	return len(c.data) == 1 && (c.data[0] == 1 || c.data[0] == 't')
}

func (c column) timestamp() (time.Time, error) {
	if c.kind == 'b' {
		if len(c.data) != 8 {
			return time.Time{}, fmt.Errorf("timestamp of %d bytes, want 8", len(c.data))
		}
		return pgTime(int64(binary.BigEndian.Uint64(c.data))), nil
	}
	return time.Parse("2006-01-02 15:04:05.999999Z07", string(c.data))
}

func (c column) int() (int64, error) {
	switch {
	case c.kind == 'b' && len(c.data) == 4:
		return int64(int32(binary.BigEndian.Uint32(c.data))), nil
	case c.kind == 'b' && len(c.data) == 8:
		return int64(binary.BigEndian.Uint64(c.data)), nil
	}
	return 0, fmt.Errorf("integer of %d bytes in format %q", len(c.data), c.kind)
}

// texts reads a one-dimensional text[] in binary format.
func (c column) texts() ([]string, error) {
	if c.kind != 'b' {
		return nil, fmt.Errorf("array in format %q, want binary", c.kind)
	}
	r := reader{b: c.data}
	dimensions := r.uint32()
	r.take(8) // whether there are nulls, and the element type
	if r.err == nil && dimensions == 0 {
		return nil, nil
	}
	count := r.uint32()
	r.take(4) // lower bound
	if r.err != nil || dimensions != 1 || int(count) > len(r.b)/4 {
		return nil, fmt.Errorf("array of %d dimensions in %d bytes, want one dimension", dimensions, len(c.data))
	}
	out := make([]string, 0, count)
	for range count {
		out = append(out, string(r.take(int(int32(r.uint32())))))
	}
	return out, r.err
}
