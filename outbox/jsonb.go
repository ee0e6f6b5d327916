package outbox

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// What jsonb's numbers may have: numeric's limits
// (https://www.postgresql.org/docs/current/datatype-numeric.html).
const (
	maxIntegerDigits  = 131072
	maxFractionDigits = 16383
)

// What jsonb refuses in valid JSON, each with its remedy. Payloads may be confidential, so that the text
// itself is not shown.
var (
	errNUL       = errors.New(`has \u0000, which jsonb cannot store: remove it`)
	errSurrogate = errors.New("has half of a surrogate pair, which jsonb refuses: write both halves or \\ufffd")
	errNumber    = errors.New("has a number beyond Postgres's numeric, which jsonb refuses: pass it as a string")
)

// jsonbSize returns how many bytes jsonb prints for a valid JSON text, which is what the database's CHECK
// counts. Members that a later one of the same name replaces are counted too. It is an error when jsonb
// refuses the text: a NUL, half a surrogate pair, or a number beyond numeric.
func jsonbSize(text []byte) (int, error) {
	size := 0
	for i := 0; i < len(text); {
		length, printed := 1, 1
		var err error
		switch c := text[i]; c {
		case ' ', '\t', '\r', '\n':
			printed = 0
		case ',', ':':
			printed = 2
		case '"':
			length, printed, err = stringSize(text[i:])
		case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
			length, printed, err = numberSize(text[i:])
		}
		if err != nil {
			return 0, fmt.Errorf("value at byte %d %w", i, err)
		}
		i += length
		size += printed
	}
	return size, nil
}

// stringSize measures the string that text begins with: its bytes here and in jsonb's print.
func stringSize(text []byte) (length, printed int, err error) {
	i := 1
	for printed = 2; text[i] != '"'; {
		run := bytes.IndexAny(text[i:], `"\`)
		i += run
		printed += run
		if text[i] != '\\' {
			break
		}
		length, size, err := escapeSize(text[i:])
		if err != nil {
			return 0, 0, err
		}
		i += length
		printed += size
	}
	return i + 1, printed, nil
}

// escapeSize measures the escape sequence that text begins with.
func escapeSize(text []byte) (length, printed int, err error) {
	switch text[1] {
	case 'u':
	case '/':
		return 2, 1, nil
	default:
		return 2, 2, nil
	}
	switch c := hex4(text[2:]); {
	case c == 0:
		return 0, 0, errNUL
	case c == '"', c == '\\', c == '\b', c == '\t', c == '\n', c == '\f', c == '\r':
		return 6, 2, nil
	case c < ' ':
		return 6, 6, nil
	case !utf16.IsSurrogate(c):
		return 6, utf8.RuneLen(c), nil
	case len(text) >= 12 && text[6] == '\\' && text[7] == 'u' && utf16.DecodeRune(c, hex4(text[8:])) != utf8.RuneError:
		return 12, 4, nil
	}
	return 0, 0, errSurrogate
}

// hex4 reads the four digits of \uXXXX, which are known to be there.
func hex4(digits []byte) rune {
	c, _ := strconv.ParseUint(string(digits[:4]), 16, 16)
	return rune(c)
}

// numberSize measures the number that text begins with. jsonb prints it without an exponent.
func numberSize(text []byte) (length, printed int, err error) {
	plain := true
	for length < len(text) && strings.IndexByte("+-.0123456789Ee", text[length]) >= 0 {
		plain = plain && '0' <= text[length] && text[length] <= '9'
		length++
	}
	if plain && length <= maxIntegerDigits {
		return length, length, nil
	}
	number := bytes.TrimPrefix(text[:length], []byte("-"))
	mantissa, exponent := number, 0
	if i := bytes.IndexAny(number, "eE"); i >= 0 {
		mantissa = number[:i]
		// Postgres refuses longer exponents even of zero.
		e, err := strconv.ParseInt(string(number[i+1:]), 10, 32)
		if err != nil || e >= math.MaxInt32/2 {
			return 0, 0, errNumber
		}
		exponent = int(e)
	}
	integer, fraction, _ := bytes.Cut(mantissa, []byte("."))
	digits := append(bytes.Clone(integer), fraction...)
	significant := bytes.TrimLeft(digits, "0")

	whole, scale := 1, max(0, len(fraction)-exponent)
	if len(significant) > 0 {
		whole = max(1, len(integer)+exponent-(len(digits)-len(significant)))
	}
	if whole > maxIntegerDigits || scale > maxFractionDigits {
		return 0, 0, errNumber
	}
	printed = whole
	if scale > 0 {
		printed += 1 + scale
	}
	if text[0] == '-' && len(significant) > 0 {
		printed++
	}
	return length, printed, nil
}
