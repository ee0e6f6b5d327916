package webhook_test

import (
	"math"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/webhook"
)

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	const day = 24 * time.Hour
	for value, want := range map[string]time.Duration{
		"120":                            2 * time.Minute,
		" 120 ":                          2 * time.Minute,
		"0":                              time.Second,
		"1":                              time.Second,
		"86400":                          day,
		"86401":                          day,
		"315360000":                      day, // ten years
		"99999999999999999999999":        day,
		"-5":                             0,
		"+5":                             0,
		"1.5":                            0,
		"1e3":                            0,
		"soon":                           0,
		"":                               0,
		"Sun, 01 Mar 2026 12:01:00 GMT":  time.Minute,
		"Sunday, 01-Mar-26 12:01:00 GMT": time.Minute,
		"Sun Mar  1 12:01:00 2026":       time.Minute,
		"Sun, 01 Mar 2026 11:59:00 GMT":  0,
		"Sun, 01 Mar 2026 12:00:00 GMT":  0,
		"Fri, 01 Mar 2036 12:00:00 GMT":  day,
		"Sun, 99 Mar 2026 12:00:00 GMT":  0,
	} {
		require.Equal(t, want, webhook.RetryAfter(value, now), value)
	}
	require.Equal(t, time.Second, webhook.RetryAfter("Sun, 01 Mar 2026 12:00:00 GMT", now.Add(-time.Millisecond)))
}

func FuzzRetryAfter(f *testing.F) {
	for _, seed := range []string{"120", "-1", "Sun, 01 Mar 2026 12:01:00 GMT", "99999999999999999999"} {
		f.Add(seed, int64(1_772_366_400))
	}
	f.Fuzz(func(t *testing.T, value string, now int64) {
		got := webhook.RetryAfter(value, time.Unix(now, 0))
		require.True(t, got == 0 || got >= time.Second && got <= 24*time.Hour, got)
		if n, err := strconv.ParseUint(value, 10, 64); err == nil {
			want := min(max(float64(n), 1), 86400)
			require.Equal(t, want, math.Round(got.Seconds()))
		}
	})
}

func TestWhatOfAResponseIsKept(t *testing.T) {
	s := webhook.New(webhook.Options{MaxResponse: 10, Policy: webhook.Policy{AllowLoopback: true}, Log: zerolog.Nop()})
	t.Cleanup(s.Close)
	for body, want := range map[string]string{
		"":                     "",
		"ok":                   "ok",
		"exactly 10":           "exactly 10",
		"more than 10":         "more than ",
		"cut 漢漢漢漢":             "cut 漢漢",
		"cut....漢漢":            "cut....漢",
		"cut.....漢":            "cut.....",
		"a\x00b":               "a\uFFFDb",
		"\xff\xfe\xfdx":        "\uFFFDx",
		"\x00\x00\x00\x00":     "\uFFFD\uFFFD\uFFFD",
		"cut.....\xe6\xbc":     "cut.....",
		strings.Repeat("é", 9): "ééééé",
	} {
		answer := "HTTP/1.1 404 x\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body
		out := send(t, s, settings(newRawServer(t, answering(answer)).url))
		require.Equal(t, want, out.Body, "%q", body)
		require.True(t, utf8.ValidString(out.Body))
	}
}
