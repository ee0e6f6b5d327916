// Package delivery holds the words that every other package of the relay speaks: events, positions,
// subscriptions, deliveries and what becomes of them. It does no I/O and reads no clock.
package delivery

import (
	"fmt"
	"strconv"
	"strings"
)

// LSN is a position in the write-ahead log, in bytes from its beginning.
type LSN uint64

// String formats the position as Postgres does: two hexadecimal halves, "16/B374D848".
func (l LSN) String() string {
	return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l))
}

// ParseLSN reads what String writes.
func ParseLSN(s string) (LSN, error) {
	hi, lo, ok := strings.Cut(s, "/")
	if !ok {
		return 0, fmt.Errorf("%q is not an LSN (want two hexadecimal halves, as 16/B374D848)", s)
	}
	h, err := strconv.ParseUint(hi, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is not an LSN: %w", s, err)
	}
	l, err := strconv.ParseUint(lo, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is not an LSN: %w", s, err)
	}
	return LSN(h<<32 | l), nil
}

// Position orders everything the stream yields. There are two kinds, and one comparison serves both:
//
//   - inside a transaction, LSN is where its commit record begins and Index counts the transaction's
//     events and configuration changes from 1;
//   - after a whole transaction, LSN is where its commit record ends and Index is 0.
//
// A commit record ends after it begins, and the next one begins no earlier than that end, so everything
// of a transaction compares at or before its end and everything of the next one after it. Row LSNs are
// never used: they are not monotonic across commits.
type Position struct {
	LSN   LSN
	Index uint64
}

// Compare returns -1, 0 or 1 as p lies before, at or after o.
func (p Position) Compare(o Position) int {
	switch {
	case p.LSN < o.LSN:
		return -1
	case p.LSN > o.LSN:
		return 1
	case p.Index < o.Index:
		return -1
	case p.Index > o.Index:
		return 1
	}
	return 0
}

// After reports whether p lies behind o.
func (p Position) After(o Position) bool { return p.Compare(o) > 0 }

// String formats the position as "16/B374D848+3".
func (p Position) String() string { return p.LSN.String() + "+" + strconv.FormatUint(p.Index, 10) }
