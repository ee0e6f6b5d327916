package stream

import (
	"bytes"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// Bounds of a logical message that is an event. outbox.emit keeps within them; whoever calls
// pg_logical_emit_message by hand may not.
const (
	maxMessage = 10<<20 + 64<<10 // bytes: payload and headers have 10 MB at most, and the rest is small
	maxDepth   = 10_000          // as encoding/json; whatever reads JSON recursively needs a bound
)

// unstorable says why Postgres would not take the text as jsonb although it may be JSON; the empty string
// means that it would. An event that cannot be recorded would come again and again and stop all others.
func unstorable(b []byte) string {
	switch {
	case len(b) > maxMessage:
		return fmt.Sprintf("has %d bytes, more than %d", len(b), maxMessage)
	case !utf8.Valid(b):
		return "is not UTF-8"
	}
	depth := 0
	for i := 0; i < len(b); {
		n, problem := 1, ""
		switch c := b[i]; {
		case c == '[' || c == '{':
			depth++
		case c == ']' || c == '}':
			depth--
		case c == '"':
			n, problem = scanString(b[i:])
		case c == '-' || isDigit(c):
			n, problem = scanNumber(b[i:])
		}
		if depth > maxDepth {
			problem = fmt.Sprintf("is nested more than %d deep", maxDepth)
		}
		if problem != "" {
			return problem
		}
		i += n
	}
	return ""
}

// scanString returns the length of the string that b begins with. jsonb has no NUL and no half of a
// surrogate pair.
func scanString(b []byte) (n int, problem string) {
	for i := 1; i < len(b); {
		switch b[i] {
		case '"':
			return i + 1, ""
		case '\\':
			n, problem := scanEscape(b[i:])
			if problem != "" {
				return i, problem
			}
			i += n
		default:
			i++
		}
	}
	return len(b), ""
}

func scanEscape(b []byte) (n int, problem string) {
	const high, low = 0xd800, 0xdc00 // each is the first of 1024
	switch c := codeUnit(b); {
	case c < 0:
		return 2, "" // another escape
	case c == 0:
		return 0, `holds \u0000, which Postgres cannot store`
	case c >= low && c < low+1024, c >= high && c < low && codeUnit(b[6:])&^1023 != low:
		return 0, fmt.Sprintf(`holds \u%04x without the other half of its surrogate pair`, c)
	case c >= high && c < low:
		return 12, ""
	}
	return 6, ""
}

// codeUnit is the value of the \uXXXX that b begins with, -1 when it begins otherwise.
func codeUnit(b []byte) int {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return -1
	}
	v, err := strconv.ParseUint(string(b[2:6]), 16, 16)
	if err != nil {
		return -1
	}
	return int(v)
}

// scanNumber returns the length of the number that b begins with. It must fit type numeric (PostgreSQL
// documentation, "Arbitrary Precision Numbers"): 131072 digits before the point and 16383 after it.
func scanNumber(b []byte) (n int, problem string) {
	end := bytes.IndexFunc(b, func(r rune) bool { return !bytes.ContainsRune([]byte("0123456789+-.eE"), r) })
	if end < 0 {
		end = len(b)
	}
	mantissa, exponent := b[:end], 0
	if e := bytes.IndexAny(mantissa, "eE"); e >= 0 {
		v, err := strconv.ParseInt(string(mantissa[e+1:]), 10, 32)
		if err != nil {
			return end, "holds a number with an exponent out of range"
		}
		mantissa, exponent = mantissa[:e], int(v)
	}
	whole, fraction, _ := bytes.Cut(mantissa, []byte("."))
	if len(bytes.TrimLeft(whole, "-"))+exponent > 131072 || len(fraction)-exponent > 16383 {
		return end, "holds a number that is out of the range of type numeric"
	}
	return end, ""
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
