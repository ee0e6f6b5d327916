package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

const day = 24 * time.Hour

// ParseDuration reads a Go duration that may begin with whole days: 100ms, 1h30m, 7d, 1d12h. A day is 24
// hours.
func ParseDuration(s string) (time.Duration, error) {
	wrong := fmt.Errorf("%q is not a duration: write it as 100ms, 30s, 1h30m or 7d", s)
	whole, rest, hasDays := strings.Cut(s, "d")
	if !hasDays {
		d, err := time.ParseDuration(s)
		if err != nil {
			return 0, wrong
		}
		return d, nil
	}
	days, err := strconv.ParseUint(whole, 10, 16)
	if err != nil || time.Duration(days) > math.MaxInt64/day {
		return 0, wrong
	}
	d := time.Duration(days) * day
	if rest == "" {
		return d, nil
	}
	more, err := time.ParseDuration(rest)
	if err != nil || more < 0 || d+more < d {
		return 0, wrong
	}
	return d + more, nil
}

// formatDuration writes a duration without the zero units of time.Duration.String: 168h, not 168h0m0s.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Bytes is an amount of memory, in bytes.
type Bytes int64

// units from the largest, so that String finds the shortest form.
var units = []struct {
	name string
	size Bytes
}{
	{"GiB", 1 << 30}, {"GB", 1e9}, {"MiB", 1 << 20}, {"MB", 1e6}, {"KiB", 1 << 10}, {"kB", 1e3}, {"B", 1},
}

// ParseBytes reads a whole number of bytes, or one with a unit: kB, MB and GB are powers of 1000, KiB, MiB
// and GiB of 1024. Upper and lower case are the same, and a space may stand between.
func ParseBytes(s string) (Bytes, error) {
	wrong := fmt.Errorf("%q is not a size: write a whole number with kB, MB, GB, KiB, MiB or GiB, as in 32MiB", s)
	digits := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
	size := Bytes(1)
	if name := s[len(digits):]; name != "" {
		size = 0
		for _, u := range units {
			if strings.EqualFold(name, u.name) {
				size = u.size
			}
		}
	}
	n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
	if err != nil || size == 0 || n < 0 || Bytes(n) > math.MaxInt64/size {
		return 0, wrong
	}
	return Bytes(n) * size, nil
}

// String writes the amount in the largest unit that divides it: 32MiB.
func (b Bytes) String() string {
	for _, u := range units {
		if b != 0 && b%u.size == 0 {
			return strconv.FormatInt(int64(b/u.size), 10) + u.name
		}
	}
	return "0B"
}

// parseBool reads what YAML calls a boolean today, and nothing else that could be meant by mistake.
func parseBool(s string) (bool, error) {
	switch s {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither true nor false", s)
}

// parseInt reads a whole number that fits an int everywhere.
func parseInt(s string) (int, error) {
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is not a whole number up to %d: write digits only, as in 256", s, math.MaxInt32)
	}
	return int(n), nil
}
