package route

import (
	"cmp"
	"strings"
)

// decimal is a JSON number, exactly: 0.d1d2d3... times ten to the exponent, where the digits are those of
// whole followed by those of fraction. The first and the last digit are never zero, so that equal numbers
// have equal digits however they were written; no digits at all mean zero. Comparing two of them costs
// time and memory in the length of what was written, never in the size of the number: 1e1000000000 is
// one digit.
type decimal struct {
	negative        bool
	exponent        int64
	whole, fraction string // parts of the text that was parsed, not copies
}

// maxExponent is where exponents saturate. It lies far beyond any exponent that Compile accepts plus the
// length of any text, so that a saturated number still compares correctly with every operand of a filter.
const maxExponent = 1_000_000_000_000_000_000

// parseDecimal reads a JSON number. It reports false for anything else.
func parseDecimal(text string) (decimal, bool) {
	text, negative := strings.CutPrefix(text, "-")
	mantissa, exponent := text, int64(0)
	if i := strings.IndexAny(text, "eE"); i >= 0 {
		var ok bool
		if exponent, ok = parseExponent(text[i+1:]); !ok {
			return decimal{}, false
		}
		mantissa = text[:i]
	}
	whole, fraction, dotted := strings.Cut(mantissa, ".")
	if !isDigits(whole) || dotted && !isDigits(fraction) {
		return decimal{}, false
	}
	return normalize(negative, whole, fraction, exponent), true
}

// normalize strips the zeros before the first and after the last digit that counts.
func normalize(negative bool, whole, fraction string, exponent int64) decimal {
	whole = strings.TrimLeft(whole, "0")
	fraction = strings.TrimRight(fraction, "0")
	exponent += int64(len(whole))
	if whole == "" {
		digits := strings.TrimLeft(fraction, "0")
		exponent -= int64(len(fraction) - len(digits))
		fraction = digits
	}
	if fraction == "" {
		whole = strings.TrimRight(whole, "0")
	}
	if whole == "" && fraction == "" {
		return decimal{}
	}
	return decimal{negative: negative, exponent: exponent, whole: whole, fraction: fraction}
}

// parseExponent reads what follows the e. Values beyond maxExponent saturate.
func parseExponent(text string) (int64, bool) {
	digits, negative := strings.CutPrefix(text, "-")
	if !negative {
		digits = strings.TrimPrefix(digits, "+")
	}
	if !isDigits(digits) {
		return 0, false
	}
	var value int64
	for _, digit := range []byte(digits) {
		value = min(maxExponent, value*10+int64(digit-'0'))
		if value == maxExponent {
			break
		}
	}
	if negative {
		value = -value
	}
	return value, true
}

func isDigits(text string) bool {
	for i := range len(text) {
		if text[i] < '0' || text[i] > '9' {
			return false
		}
	}
	return text != ""
}

// compare orders two numbers by value.
func (d decimal) compare(o decimal) int {
	if order := cmp.Compare(d.sign(), o.sign()); order != 0 || d.sign() == 0 {
		return order
	}
	order := cmp.Compare(d.exponent, o.exponent)
	if order == 0 {
		order = d.compareDigits(o)
	}
	return order * d.sign()
}

func (d decimal) sign() int {
	switch {
	case d.whole == "" && d.fraction == "":
		return 0
	case d.negative:
		return -1
	}
	return 1
}

// compareDigits orders the digits as text does: there are no zeros at the end, so that of two numbers of
// which one continues the other, the longer one is larger.
func (d decimal) compareDigits(o decimal) int {
	for i := range min(d.size(), o.size()) {
		if order := cmp.Compare(d.digit(i), o.digit(i)); order != 0 {
			return order
		}
	}
	return cmp.Compare(d.size(), o.size())
}

func (d decimal) size() int { return len(d.whole) + len(d.fraction) }

func (d decimal) digit(i int) byte {
	if i < len(d.whole) {
		return d.whole[i]
	}
	return d.fraction[i-len(d.whole)]
}
