package ops

import (
	"fmt"
	"time"
)

// The alerts of the slot.
const (
	slotLag       = "slot_lag"
	slotInactive  = "slot_inactive"
	slotAtRisk    = "slot_at_risk"
	slotRecovered = "slot_recovered"
	relayHalted   = "relay_halted"
)

// unreadFor is how long no relay may read the slot: a takeover takes seconds.
const unreadFor = time.Minute

// slotLook is what is known of the slot at a moment.
type slotLook struct {
	slot        string
	lag         Lag
	forecast    Forecast
	unread      time.Duration // for how long no relay has read it
	state, code string        // of the relay that looks
}

// slotFinding is an alert of the slot as outbox.check_alerts takes it: an alert begins when raise holds, and ends when keep
// does not.
type slotFinding struct {
	Alert     string   `json:"alert"`
	Raise     bool     `json:"raise"`
	Keep      bool     `json:"keep"`
	Value     *float64 `json:"value"`
	Threshold *float64 `json:"threshold"`
	Message   string   `json:"message"`
}

// judge decides about every alert of the slot but slot_recovered, which the database tells.
func (l *slotLook) judge(t Thresholds) []slotFinding {
	return []slotFinding{l.judgeLag(t.Lag), l.judgeUnread(), l.judgeRisk(t.SlotLostWithin), l.judgeHalted()}
}

func (l *slotLook) judgeLag(threshold time.Duration) slotFinding {
	late := threshold > 0 && l.lag.LagSeconds > threshold.Seconds()
	return slotFinding{Alert: slotLag, Raise: late, Keep: late, Value: &l.lag.LagSeconds, Threshold: inSeconds(threshold),
		Message: fmt.Sprintf("the oldest committed event that is not recorded is %s old: walhook status says what holds the slot %s back",
			rounded(l.lag.LagSeconds), l.slot)}
}

// judgeUnread: who stands by, is halted or recovers says so, since a relay that runs reads the slot itself.
func (l *slotLook) judgeUnread() slotFinding {
	return slotFinding{Alert: slotInactive, Raise: l.unread > unreadFor, Keep: !l.lag.Active, Value: inSeconds(l.unread), Threshold: inSeconds(unreadFor),
		Message: fmt.Sprintf("no relay has read replication slot %s for %s: nothing new is delivered and WAL piles up", l.slot, rounded(l.unread.Seconds()))}
}

// judgeRisk: a forecast wavers, so that one which raised an alert ends it only when it has become half as long again.
func (l *slotLook) judgeRisk(within time.Duration) slotFinding {
	f := slotFinding{Alert: slotAtRisk, Threshold: inSeconds(within)}
	switch {
	case within == 0:
		return f
	case l.lag.WALStatus == "lost":
		f.Raise, f.Keep = true, true
		f.Message = fmt.Sprintf("replication slot %s is gone or lost: walhook doctor says what mends it", l.slot)
	case l.lag.WALStatus == "unreserved":
		f.Raise, f.Keep = true, true
		f.Message = fmt.Sprintf("replication slot %s is past max_slot_wal_keep_size: the next checkpoint of Postgres may remove WAL that it needs", l.slot)
	default:
		what, seconds := l.forecast.danger()
		if seconds == nil {
			return f
		}
		f.Raise, f.Keep, f.Value = *seconds < within.Seconds(), *seconds < 1.5*within.Seconds(), seconds
		f.Message = fmt.Sprintf("at the present rate %s in %s: walhook status says what holds replication slot %s back", what, rounded(*seconds), l.slot)
	}
	return f
}

// danger is what comes first, and in how many seconds; nil when nothing comes or it is not known.
func (f *Forecast) danger() (what string, seconds *float64) {
	if f.SecondsUntilLost == nil || f.SecondsUntilDiskFull != nil && *f.SecondsUntilDiskFull < *f.SecondsUntilLost {
		return "the disk is full", f.SecondsUntilDiskFull
	}
	return "the slot is lost", f.SecondsUntilLost
}

// judgeHalted: it ends when any relay reads the slot again, for another one than the relay that looks may have been halted.
func (l *slotLook) judgeHalted() slotFinding {
	code := ""
	if l.code != "" {
		code = " (" + l.code + ")"
	}
	return slotFinding{Alert: relayHalted, Raise: l.state == "halted" && !l.lag.Active, Keep: !l.lag.Active,
		Message: fmt.Sprintf("the relay of slot %s is halted%s until somebody decides: /readyz and its log say why and what mends it; the queue is still served", l.slot, code)}
}

func inSeconds(d time.Duration) *float64 {
	s := d.Seconds()
	return &s
}

func rounded(seconds float64) time.Duration {
	return time.Duration(seconds * float64(time.Second)).Round(time.Second)
}
