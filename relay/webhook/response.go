package webhook

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	// maxRead is how much of a response is read, in bytes, so that a connection whose response is small
	// can be used again. The rest is not worth a connection.
	maxRead = 64 << 10
	// maxReadTime is how long reading a response may take after its headers came. What decides the attempt
	// is known by then, and nobody else should wait for the rest.
	maxReadTime = time.Second

	minRetryAfter = time.Second
	maxRetryAfter = 24 * time.Hour
)

// readBody reads the response and returns its beginning: valid UTF-8 without NUL, at most s.maxResponse
// bytes, secrets blotted out. Errors mean that there is no more; the status has decided already.
func (s *Sender) readBody(resp *http.Response, cancel func(), e *endpoint) string {
	if resp.ContentLength == 0 || resp.Body == http.NoBody || resp.StatusCode < 200 {
		return ""
	}
	stop := time.AfterFunc(maxReadTime, cancel)
	defer stop.Stop()
	buffer := s.responses.Get().(*[]byte)
	defer s.responses.Put(buffer)

	n, err := io.ReadFull(resp.Body, *buffer)
	kept := e.blot(cleanText((*buffer)[:n], s.maxResponse))
	if err == nil {
		kept = e.withoutBeginning(kept)
	}
	for total := n; err == nil && total < maxRead; total += n {
		n, err = resp.Body.Read(*buffer)
	}
	return cut(kept, s.maxResponse)
}

// cleanText makes text that Postgres can store of any bytes: what is not UTF-8 and every NUL become U+FFFD,
// and a character that was cut off at the end is dropped. The result has at most limit bytes.
func cleanText(b []byte, limit int) string {
	b = b[:wholeRunes(b)]
	if utf8.Valid(b) && bytes.IndexByte(b, 0) < 0 {
		return cut(string(b), limit)
	}
	text := strings.ToValidUTF8(string(b), "\uFFFD")
	return cut(strings.ReplaceAll(text, "\x00", "\uFFFD"), limit)
}

// cut shortens valid UTF-8 to at most limit bytes without splitting a character.
func cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return text[:wholeRunes([]byte(text[:limit]))]
}

// wholeRunes returns the length of b without a character that is incomplete at its end.
func wholeRunes(b []byte) int {
	for i := len(b) - 1; i >= 0 && i > len(b)-utf8.UTFMax; i-- {
		if utf8.RuneStart(b[i]) {
			if !utf8.FullRune(b[i:]) {
				return i
			}
			break
		}
	}
	return len(b)
}

// retryAfterOf returns how long a 429 or 503 asks to be left alone; other answers ask nothing.
func retryAfterOf(resp *http.Response, now time.Time) time.Duration {
	if resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusServiceUnavailable {
		return 0
	}
	values := resp.Header["Retry-After"]
	if len(values) == 0 {
		return 0
	}
	return RetryAfter(values[0], now)
}

// RetryAfter reads a Retry-After header (RFC 9110, section 10.2.3): seconds or an HTTP date, which is
// compared with now. The result lies in [1 s, 24 h], or is 0 for what asks nothing: negative numbers, dates
// that have passed, and what is neither number nor date.
func RetryAfter(value string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	if isDigits(value) {
		seconds, err := strconv.ParseUint(value, 10, 64)
		if err != nil || seconds > uint64(maxRetryAfter/time.Second) {
			return maxRetryAfter
		}
		return max(time.Duration(seconds)*time.Second, minRetryAfter)
	}
	at, err := http.ParseTime(value)
	if err != nil || !at.After(now) {
		return 0
	}
	return min(max(at.Sub(now), minRetryAfter), maxRetryAfter)
}

func isDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}
