package ops_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/ops"
)

func in(d time.Duration) *float64 {
	s := d.Seconds()
	return &s
}

func TestJudgeSlot(t *testing.T) {
	t.Parallel()
	well := ops.AlertLook{Lag: ops.Lag{Active: true, WALStatus: "reserved"}, State: "running"}
	yes, kept, no := [2]bool{true, true}, [2]bool{false, true}, [2]bool{false, false}
	for _, c := range []struct {
		alert   string
		change  func(*ops.AlertLook)
		want    [2]bool // raise, keep
		message string
	}{
		{"slot_lag", func(l *ops.AlertLook) { l.Lag.LagSeconds = 300 }, no, ""},
		{"slot_lag", func(l *ops.AlertLook) { l.Lag.LagSeconds = 301.4 }, yes, "5m1s old"},
		{"slot_inactive", func(l *ops.AlertLook) {}, no, ""},
		{"slot_inactive", func(l *ops.AlertLook) { l.Lag.Active, l.Unread = false, time.Minute }, kept, ""},
		{"slot_inactive", func(l *ops.AlertLook) { l.Lag.Active, l.Unread = false, time.Minute+time.Second }, yes, "slot s for 1m1s"},
		{"slot_at_risk", func(l *ops.AlertLook) {}, no, ""},
		{"slot_at_risk", func(l *ops.AlertLook) { l.Lag.WALStatus = "extended" }, no, ""},
		{"slot_at_risk", func(l *ops.AlertLook) { l.Lag.WALStatus = "unreserved" }, yes, "past max_slot_wal_keep_size"},
		{"slot_at_risk", func(l *ops.AlertLook) { l.Lag.WALStatus = "lost" }, yes, "gone or lost"},
		{"slot_at_risk", func(l *ops.AlertLook) { l.Forecast.SecondsUntilDiskFull = in(6*time.Hour - 1) }, yes, "the disk is full in 6h0m0s"},
		{"slot_at_risk", func(l *ops.AlertLook) { l.Forecast.SecondsUntilLost = in(6 * time.Hour) }, kept, ""},
		{"slot_at_risk", func(l *ops.AlertLook) { l.Forecast.SecondsUntilLost = in(9 * time.Hour) }, no, ""},
		{"slot_at_risk", func(l *ops.AlertLook) {
			l.Forecast.SecondsUntilDiskFull, l.Forecast.SecondsUntilLost = in(2*time.Hour), in(time.Hour)
		}, yes, "the slot is lost in 1h0m0s"},
		{"slot_at_risk", func(l *ops.AlertLook) {
			l.Forecast.SecondsUntilDiskFull, l.Forecast.SecondsUntilLost = in(time.Hour), in(2*time.Hour)
		}, yes, "the disk is full in 1h0m0s"},
		{"relay_halted", func(l *ops.AlertLook) { l.State = "halted" }, no, ""}, // another relay reads the slot
		{"relay_halted", func(l *ops.AlertLook) { l.State, l.Lag.Active = "reconnecting", false }, kept, ""},
		{"relay_halted", func(l *ops.AlertLook) { l.State, l.Code, l.Lag.Active = "halted", "slot_lost", false }, yes, "of slot s is halted (slot_lost) until"},
		{"relay_halted", func(l *ops.AlertLook) { l.State, l.Lag.Active = "halted", false }, yes, "is halted until"},
	} {
		look := well
		c.change(&look)
		got := ops.Judge(look, thresholds)[c.alert]
		require.Equal(t, c.want, [2]bool{got.Raise, got.Keep}, "%s of %+v", c.alert, look)
		require.Contains(t, got.Message, c.message)
	}
	off := ops.Judge(ops.AlertLook{Lag: ops.Lag{WALStatus: "lost", LagSeconds: 1e6}, Forecast: ops.Forecast{SecondsUntilLost: in(0)}}, ops.Thresholds{})
	require.False(t, off["slot_lag"].Keep)
	require.False(t, off["slot_at_risk"].Keep)
}
