package ops_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/ops"
)

const mib = 1 << 20

// noon is when forecasts of these tests are made.
var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// at is a sample of so long before noon, positions in MiB.
func at(ago time.Duration, wal, confirmed, restart int64) ops.WALSample {
	return ops.WALSample{At: noon.Add(-ago), WAL: wal * mib, Confirmed: number(confirmed * mib), Restart: number(restart * mib)}
}

// reading is a look at a slot that a relay reads, and which Postgres keeps.
func reading(s ops.WALSample) ops.WALLook {
	return ops.WALLook{WALSample: s, Exists: true, Active: true, WALStatus: "reserved"}
}

func TestForecast(t *testing.T) {
	t.Parallel()
	stuck := reading(at(0, 1000, 400, 400)) // 1 MiB a second since a sample of ten minutes ago, of which nothing is confirmed
	before := at(10*time.Minute, 400, 400, 400)
	for name, tt := range map[string]struct {
		change     func(*ops.WALLook)
		slot, disk ops.Outlook
		lost, full float64 // seconds; -1: none
	}{
		"no limit, room unknown":  {func(*ops.WALLook) {}, ops.OutlookUnlimited, ops.OutlookUnknownRoom, -1, -1},
		"the slot is lost first":  {func(l *ops.WALLook) { l.SafeBytes, l.FreeBytes = number(500*mib), number(600*mib) }, ops.OutlookApproaching, ops.OutlookSlotFirst, 500, -1},
		"the disk is full first":  {func(l *ops.WALLook) { l.SafeBytes, l.FreeBytes = number(500*mib), number(300*mib) }, ops.OutlookApproaching, ops.OutlookApproaching, 500, 300},
		"no limit":                {func(l *ops.WALLook) { l.FreeBytes = number(300 * mib) }, ops.OutlookUnlimited, ops.OutlookApproaching, -1, 300},
		"nobody reads it":         {func(l *ops.WALLook) { l.Active, l.SafeBytes = false, number(500*mib) }, ops.OutlookApproaching, ops.OutlookUnknownRoom, 500, -1},
		"half as fast as the WAL": {func(l *ops.WALLook) { l.Restart, l.SafeBytes = number(700*mib), number(500*mib) }, ops.OutlookApproaching, ops.OutlookUnknownRoom, 1000, -1},
		"nobody reads it, it did": {func(l *ops.WALLook) { l.Active, l.Restart, l.SafeBytes = false, number(700*mib), number(500*mib) }, ops.OutlookApproaching, ops.OutlookUnknownRoom, 500, -1},
		"as fast as the WAL":      {func(l *ops.WALLook) { l.Restart, l.SafeBytes, l.FreeBytes = number(990*mib), number(mib), number(mib) }, ops.OutlookSteady, ops.OutlookSteady, -1, -1},
		"faster, it catches up":   {func(l *ops.WALLook) { l.Restart, l.WAL, l.SafeBytes = number(990*mib), 500*mib, number(mib) }, ops.OutlookSteady, ops.OutlookSteady, -1, -1},
		"it went backwards":       {func(l *ops.WALLook) { l.Restart, l.SafeBytes = number(100*mib), number(500*mib) }, ops.OutlookApproaching, ops.OutlookUnknownRoom, 500, -1},
		"beyond the limit":        {func(l *ops.WALLook) { l.WALStatus, l.SafeBytes = "unreserved", number(-5) }, ops.OutlookApproaching, ops.OutlookUnknownRoom, 0, -1},
		"lost":                    {func(l *ops.WALLook) { l.Active, l.WALStatus, l.FreeBytes = false, "lost", number(1) }, ops.OutlookLost, ops.OutlookSteady, 0, -1},
		"gone": {func(l *ops.WALLook) {
			*l = ops.WALLook{WALSample: ops.WALSample{At: noon, WAL: 1000 * mib}, FreeBytes: number(1)}
		}, ops.OutlookLost, ops.OutlookSteady, 0, -1},
		"another slot fills the disk": {func(l *ops.WALLook) {
			l.Restart, l.FreeBytes, l.Slots = l.Confirmed, number(60*mib), []ops.OtherSlot{{Name: "o"}}
			l.Restart = number(999 * mib)
		}, ops.OutlookUnlimited, ops.OutlookApproaching, -1, 60},
		"another slot that is read": {func(l *ops.WALLook) {
			l.Restart, l.FreeBytes, l.Slots = number(999*mib), number(60*mib), []ops.OtherSlot{{Active: true}}
		}, ops.OutlookUnlimited, ops.OutlookSteady, -1, -1},
		"full": {func(l *ops.WALLook) { l.FreeBytes = number(0) }, ops.OutlookUnlimited, ops.OutlookApproaching, -1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			look := stuck
			tt.change(&look)
			f := look.Forecast([]ops.WALSample{before})
			require.Equal(t, tt.slot, f.Slot)
			require.Equal(t, tt.disk, f.Disk)
			for _, s := range []struct {
				want float64
				got  *float64
			}{{tt.lost, f.SecondsUntilLost}, {tt.full, f.SecondsUntilDiskFull}} {
				if s.want < 0 {
					require.Nil(t, s.got)
				} else {
					require.NotNil(t, s.got)
					require.InDelta(t, s.want, *s.got, 1e-6)
				}
			}
		})
	}
}

// What rates are measured against.
func TestForecastChoosesItsSample(t *testing.T) {
	t.Parallel()
	look := reading(at(0, 1000, 1000, 1000))
	look.SafeBytes, look.FreeBytes = number(1), number(1)
	sample := func(ago time.Duration) ops.WALSample { return at(ago, 900, 900, 900) }
	for name, tt := range map[string]struct {
		past []ops.WALSample
		over time.Duration // 0: none
	}{
		"none":                            {nil, 0},
		"the oldest of 15 minutes":        {[]ops.WALSample{sample(3 * time.Minute), sample(14 * time.Minute), sample(16 * time.Minute), sample(time.Minute)}, 14 * time.Minute},
		"a minute":                        {[]ops.WALSample{sample(time.Minute), sample(16 * time.Minute)}, time.Minute},
		"before the relay went away":      {[]ops.WALSample{sample(48 * time.Hour), sample(3 * time.Hour), sample(59 * time.Second)}, 3 * time.Hour},
		"a second":                        {[]ops.WALSample{sample(time.Second), sample(100 * time.Millisecond)}, time.Second},
		"too short":                       {[]ops.WALSample{sample(100 * time.Millisecond)}, 0},
		"of the future":                   {[]ops.WALSample{sample(-time.Hour)}, 0},
		"before a failover that lost WAL": {[]ops.WALSample{at(10*time.Minute, 1001, 1, 1), sample(5 * time.Minute)}, 5 * time.Minute},
	} {
		f := look.Forecast(tt.past)
		require.InDelta(t, tt.over.Seconds(), f.OverSeconds, 1e-9, name)
		if tt.over == 0 {
			require.Nil(t, f.WALBytesPerSecond, name)
			require.Nil(t, f.SlotBytesPerSecond, name)
			require.Equal(t, ops.OutlookUnknownRate, f.Slot, name)
			require.Equal(t, ops.OutlookUnknownRate, f.Disk, name)
			continue
		}
		require.InDelta(t, 100*mib/tt.over.Seconds(), *f.WALBytesPerSecond, 1e-3, name)
		require.InDelta(t, 100*mib/tt.over.Seconds(), *f.SlotBytesPerSecond, 1e-3, name)
		require.False(t, *f.RetainedGrows, name)
	}
}

// The restart position moves in leaps: a second of its standing still says nothing, while the confirmed one moves.
func TestForecastOfTwoLooks(t *testing.T) {
	t.Parallel()
	look := reading(at(0, 1000, 990, 500))
	look.SafeBytes = number(100 * mib)
	require.Equal(t, ops.OutlookSteady, look.Forecast([]ops.WALSample{at(time.Second, 900, 890, 500)}).Slot)
	require.Equal(t, ops.OutlookApproaching, look.Forecast([]ops.WALSample{at(time.Second, 900, 980, 500)}).Slot)
	require.Equal(t, ops.OutlookApproaching, look.Forecast([]ops.WALSample{at(10*time.Minute, 100, 90, 490)}).Slot, "but ten minutes do")
	unknown := look.Forecast([]ops.WALSample{{At: noon.Add(-time.Second), WAL: 900 * mib}})
	require.Equal(t, ops.OutlookUnknownRate, unknown.Slot, "there was no slot then")
	require.InDelta(t, 100*mib, *unknown.WALBytesPerSecond, 1)
}

// A relay that has just come back has nothing to catch up with any more, whatever the quarter of an hour was like.
func TestForecastOfASlotThatKeepsLittle(t *testing.T) {
	t.Parallel()
	before := at(10*time.Minute, 980, 980, 980)
	look := reading(at(0, 1000, 1000, 985))
	look.SafeBytes, look.FreeBytes = number(200*mib), number(300*mib)
	f := look.Forecast([]ops.WALSample{before})
	require.Equal(t, ops.OutlookSteady, f.Slot)
	require.Equal(t, ops.OutlookSteady, f.Disk)
	look.Active = false
	require.Equal(t, ops.OutlookApproaching, look.Forecast([]ops.WALSample{before}).Slot, "nobody reads it")
	look = reading(at(0, 1000, 1000, 984))
	look.SafeBytes = number(200 * mib)
	require.Equal(t, ops.OutlookApproaching, look.Forecast([]ops.WALSample{before}).Slot, "a segment")
}

// Whatever Postgres may say, a forecast is a number of seconds with a reason for it, or none with a reason for that.
func TestForecastOfAnything(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	maybe := func(n int64) *int64 {
		if r.IntN(4) == 0 {
			return nil
		}
		return number(r.Int64N(n) - n/10)
	}
	sample := func() ops.WALSample {
		return ops.WALSample{At: noon.Add(time.Duration(r.Int64N(int64(time.Hour))) - 55*time.Minute), WAL: r.Int64N(1 << 30), Confirmed: maybe(1 << 30), Restart: maybe(1 << 30)}
	}
	for range 20_000 {
		look := reading(sample())
		look.Exists, look.Active, look.WALStatus = r.IntN(9) > 0, r.IntN(3) > 0, []string{"reserved", "extended", "unreserved", "lost"}[r.IntN(4)]
		look.SafeBytes, look.FreeBytes = maybe(1<<30), maybe(1<<30)
		if r.IntN(3) == 0 {
			look.Slots = []ops.OtherSlot{{Active: r.IntN(2) == 0}}
		}
		past := []ops.WALSample{sample(), sample(), sample()}
		f := look.Forecast(past)
		sound(t, f.Slot, f.SecondsUntilLost)
		sound(t, f.Disk, f.SecondsUntilDiskFull)
		require.Equal(t, f.WALBytesPerSecond == nil, f.OverSeconds == 0)
		moreRoom(t, look, past, f)
		past[0], past[2] = past[2], past[0]
		require.Equal(t, f, look.Forecast(past), "the order of samples does not count")
	}
}

// sound checks that seconds and reason agree.
func sound(t *testing.T, o ops.Outlook, seconds *float64) {
	t.Helper()
	require.Contains(t, []ops.Outlook{ops.OutlookLost, ops.OutlookApproaching, ops.OutlookSteady, ops.OutlookUnlimited, ops.OutlookSlotFirst,
		ops.OutlookUnknownRate, ops.OutlookUnknownRoom}, o)
	require.Equal(t, o == ops.OutlookLost || o == ops.OutlookApproaching, seconds != nil, o)
	if seconds != nil {
		require.GreaterOrEqual(t, *seconds, 0.0)
		require.Less(t, *seconds, 1e18, "no infinity")
	}
	require.False(t, o.Never() && seconds != nil)
}

// moreRoom checks that more room never brings the end nearer.
func moreRoom(t *testing.T, l ops.WALLook, past []ops.WALSample, f ops.Forecast) {
	t.Helper()
	if l.SafeBytes != nil {
		l.SafeBytes = number(*l.SafeBytes + mib)
		g := l.Forecast(past)
		if g.SecondsUntilLost != nil {
			require.NotNil(t, f.SecondsUntilLost)
			require.GreaterOrEqual(t, *g.SecondsUntilLost, *f.SecondsUntilLost)
		}
	}
	if l.FreeBytes != nil {
		l.FreeBytes = number(*l.FreeBytes + mib)
		g := l.Forecast(past)
		if g.SecondsUntilDiskFull != nil {
			require.NotNil(t, f.SecondsUntilDiskFull)
			require.GreaterOrEqual(t, *g.SecondsUntilDiskFull, *f.SecondsUntilDiskFull)
		}
	}
}

func codes(f ops.Forecast) []ops.HolderCode {
	all := []ops.HolderCode{}
	for _, h := range f.HeldBackBy {
		all = append(all, h.Code)
	}
	return all
}

func TestWhatHoldsBack(t *testing.T) {
	t.Parallel()
	since := noon.Add(-time.Hour)
	for name, tt := range map[string]struct {
		change func(*ops.WALLook)
		codes  []ops.HolderCode
		text   string
		bytes  int64
	}{
		"nothing": {func(*ops.WALLook) {}, []ops.HolderCode{}, "", 0},
		"no relay": {func(l *ops.WALLook) { l.Active, l.InactiveSince = false, &since },
			[]ops.HolderCode{ops.HolderNoRelay}, "no relay reads the slot", 20 * mib},
		"a slow relay": {func(l *ops.WALLook) { l.Confirmed = number(900 * mib) }, []ops.HolderCode{ops.HolderBehind}, "has not recorded", 100 * mib},
		"not much":     {func(l *ops.WALLook) { l.Confirmed = number(985 * mib) }, []ops.HolderCode{}, "", 0},
		"a lost slot":  {func(l *ops.WALLook) { l.Active, l.WALStatus = false, "lost" }, []ops.HolderCode{}, "", 0},
		"a transaction": {func(l *ops.WALLook) {
			l.Transactions = []ops.Transaction{{PID: 7, User: "app", Application: "a\nb", State: "idle in transaction", Since: since}}
		}, []ops.HolderCode{ops.HolderTransaction}, `open transaction of user "app", application "a\nb", idle in transaction (pid 7)`, 15 * mib},
		"a prepared transaction": {func(l *ops.WALLook) {
			l.Transactions = []ops.Transaction{{GID: "g\x1b", User: "app", Database: "d", Since: since}}
		}, []ops.HolderCode{ops.HolderPrepared}, `prepared transaction "g\x1b" of user "app" in database "d"`, 15 * mib},
		"a transaction that holds nothing": {func(l *ops.WALLook) {
			l.Restart, l.Transactions = l.Confirmed, []ops.Transaction{{PID: 7}}
		}, []ops.HolderCode{}, "", 0},
		"another slot, the worst": {func(l *ops.WALLook) {
			l.Active, l.Slots = false, []ops.OtherSlot{{Name: "o", Type: "physical", Retained: 500 * mib, Since: &since}}
		}, []ops.HolderCode{ops.HolderOtherSlot, ops.HolderNoRelay}, "physical slot o keeps more WAL than ours, and nobody reads it", 500 * mib},
		"another slot that is read": {func(l *ops.WALLook) {
			l.Slots = []ops.OtherSlot{{Name: "o", Type: "logical", Active: true, Retained: 500 * mib}}
		}, []ops.HolderCode{ops.HolderOtherSlot}, "who reads it is behind", 500 * mib},
		"a standby that is missing": {func(l *ops.WALLook) {
			l.Confirmed, l.StandbyWait, l.Standbys = number(900*mib), true, []ops.StandbySlot{{Name: "gone", Behind: true}}
		}, []ops.HolderCode{ops.HolderStandby}, "names slot gone, which does not exist", 100 * mib},
		"a standby that is away": {func(l *ops.WALLook) { l.Standbys = []ops.StandbySlot{{Name: "away", Exists: true}} },
			[]ops.HolderCode{ops.HolderStandby}, "names slot away, which no standby reads", 5 * mib},
		"a standby that is behind": {func(l *ops.WALLook) {
			l.StandbyWait, l.Standbys = true, []ops.StandbySlot{{Name: "slow", Exists: true, Active: true, Behind: true}, {Name: "fast", Exists: true, Active: true}}
		}, []ops.HolderCode{ops.HolderStandby}, "names slot slow, which is behind", 5 * mib},
		"standbys that keep up": {func(l *ops.WALLook) {
			l.Standbys = []ops.StandbySlot{{Name: "fast", Exists: true, Active: true, Behind: true}}
		},
			[]ops.HolderCode{}, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			look := reading(at(0, 1000, 995, 980))
			tt.change(&look)
			f := look.Forecast(nil)
			require.Equal(t, tt.codes, codes(f))
			if len(tt.codes) > 0 {
				require.Contains(t, f.HeldBackBy[0].Text, tt.text)
				require.Equal(t, tt.bytes, *f.HeldBackBy[0].Bytes)
			}
		})
	}
}
