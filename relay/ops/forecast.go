package ops

import (
	"time"
)

// WALSample is where WAL and slot stood at a moment of the server's clock. Positions are bytes of WAL since its
// beginning; the slot's are nil when there was none.
type WALSample struct {
	At        time.Time `db:"at"`
	WAL       int64     `db:"wal"`
	Confirmed *int64    `db:"confirmed"`
	Restart   *int64    `db:"restart"` // from here on the server keeps WAL for the slot
}

// WALLook is what Postgres says at a moment about the slot, its disk and who may hold them back. A forecast follows from
// it and from samples of the past alone.
type WALLook struct {
	WALSample
	Exists        bool       // the slot
	Active        bool       // somebody reads it
	WALStatus     string     // as in pg_replication_slots
	SafeBytes     *int64     // WAL that may be written before the slot is lost; nil: any amount
	InactiveSince *time.Time // Postgres 17 and later
	FreeBytes     *int64     // room for WAL on the server's disk; nil: unknown
	Transactions  []Transaction
	Slots         []OtherSlot
	Standbys      []StandbySlot // of synchronized_standby_slots, when it concerns the slot (Postgres 17 and later)
	StandbyWait   bool          // the slot's sender waits for one of them
	Blind         bool          // other roles' sessions show nothing
}

// Forecast says where WAL and slot are heading at the present rate. Rates are bytes a second, nil when there is nothing
// to tell them from; seconds are nil when it never happens or cannot be told, and the outlook says which.
type Forecast struct {
	At                   time.Time `json:"at"`
	OverSeconds          float64   `json:"over_seconds"` // what the rates were measured over
	WALBytesPerSecond    *float64  `json:"wal_bytes_per_second"`
	SlotBytesPerSecond   *float64  `json:"slot_bytes_per_second"` // how fast the slot lets go of WAL
	RetainedGrows        *bool     `json:"retained_grows"`
	Slot                 Outlook   `json:"slot"`
	SecondsUntilLost     *float64  `json:"seconds_until_lost"` // until max_slot_wal_keep_size takes the slot
	Disk                 Outlook   `json:"disk"`
	SecondsUntilDiskFull *float64  `json:"seconds_until_disk_full"`
	FreeBytes            *int64    `json:"free_bytes"`
	HeldBackBy           []Holder  `json:"held_back_by"` // worst first
	// Blind means that others' transactions cannot be seen, for want of pg_monitor: there may be more that hold WAL back.
	Blind bool `json:"blind"`
	// Sample is the look that this is based on, for a forecast after it.
	Sample WALSample `json:"-"`
}

// Outlook is why there are seconds, or none.
type Outlook string

// The outlooks. Only the first two come with seconds, 0 for a lost slot.
const (
	OutlookLost        Outlook = "lost"         // it has happened: the slot is gone
	OutlookApproaching Outlook = "approaching"  // at the present rate it happens
	OutlookSteady      Outlook = "steady"       // what is kept does not grow
	OutlookUnlimited   Outlook = "unlimited"    // max_slot_wal_keep_size is not set
	OutlookSlotFirst   Outlook = "slot_first"   // the slot is lost before the disk is full
	OutlookUnknownRate Outlook = "unknown_rate" // there is no sample to compare with
	OutlookUnknownRoom Outlook = "unknown_room" // the size of the disk is not known
)

// Never reports that it does not happen, as opposed to not being known.
func (o Outlook) Never() bool {
	return o == OutlookSteady || o == OutlookUnlimited || o == OutlookSlotFirst
}

// What rates are measured over: the oldest sample of the last recentSamples. A younger relay has only younger ones,
// which do once they are a minute old; one that was down compares with the last sample from before.
const (
	recentSamples = 15 * time.Minute
	steadySample  = time.Minute
	leastSample   = 500 * time.Millisecond
)

// Forecast works out where things are heading, from samples of the past in any order. It is pure.
func (l *WALLook) Forecast(past []WALSample) Forecast {
	f := Forecast{At: l.At, FreeBytes: l.FreeBytes, HeldBackBy: l.holders(), Blind: l.Blind, Sample: l.WALSample}
	if base, ok := l.base(past); ok {
		f.measure(l, base)
	}
	f.lost(l)
	f.full(l)
	return f
}

// base chooses what to compare with. Samples ahead of the present WAL come from before a failover that lost it.
func (l *WALLook) base(past []WALSample) (WALSample, bool) {
	var recent, old *WALSample
	for i := range past {
		p := &past[i]
		age := l.At.Sub(p.At)
		switch {
		case age < leastSample || p.WAL > l.WAL:
		case age > recentSamples:
			if old == nil || p.At.After(old.At) {
				old = p
			}
		case recent == nil || p.At.Before(recent.At):
			recent = p
		}
	}
	switch {
	case recent != nil && (old == nil || l.At.Sub(recent.At) >= steadySample):
		return *recent, true
	case old != nil:
		return *old, true
	}
	return WALSample{}, false
}

// measure takes the rates. A slot that nobody reads does not move, whatever it did before. The restart position moves in
// leaps, when Postgres notes which transactions run (every 15 s) and the slot has passed that, so that a shorter time
// says something of the confirmed one only, and a longer one counts as growth only what is more than a minute's WAL. A slot
// that is read and keeps less than a segment is not growing: it may have stood still for lack of a relay until just now.
func (f *Forecast) measure(l *WALLook, base WALSample) {
	over := l.At.Sub(base.At)
	f.OverSeconds = over.Seconds()
	wal := float64(l.WAL-base.WAL) / f.OverSeconds
	f.WALBytesPerSecond = &wal
	from, to, tolerated := base.Restart, l.Restart, min(.9, steadySample.Seconds()/f.OverSeconds)
	if over < steadySample {
		from, to, tolerated = base.Confirmed, l.Confirmed, .5
	}
	var moved float64
	switch {
	case !l.Active:
		tolerated = 0
	case from == nil || to == nil:
		return
	default:
		moved = max(0, float64(*to-*from)/f.OverSeconds)
	}
	f.SlotBytesPerSecond = &moved
	grows := wal-moved > tolerated*wal
	if kept := difference(l.WAL, l.Restart); l.Active && kept != nil && *kept < farBehind {
		grows = false
	}
	f.RetainedGrows = &grows
}

// lost says when max_slot_wal_keep_size takes the slot.
func (f *Forecast) lost(l *WALLook) {
	switch {
	case !l.Exists || l.WALStatus == "lost":
		f.Slot, f.SecondsUntilLost = OutlookLost, new(float64)
	case l.SafeBytes == nil:
		f.Slot = OutlookUnlimited
	case *l.SafeBytes <= 0: // the next checkpoint takes it
		f.Slot, f.SecondsUntilLost = OutlookApproaching, new(float64)
	case f.RetainedGrows == nil:
		f.Slot = OutlookUnknownRate
	case !*f.RetainedGrows:
		f.Slot = OutlookSteady
	default:
		f.Slot, f.SecondsUntilLost = OutlookApproaching, until(*l.SafeBytes, *f.WALBytesPerSecond-*f.SlotBytesPerSecond)
	}
}

// full says when the disk is. Only what a slot keeps grows without end: Postgres recycles the rest. Another slot that
// nobody reads keeps as much as is written.
func (f *Forecast) full(l *WALLook) {
	growth, known := l.diskGrowth(f)
	switch {
	case !known:
		f.Disk = OutlookUnknownRate
	case growth <= 0:
		f.Disk = OutlookSteady
	case l.FreeBytes == nil:
		f.Disk = OutlookUnknownRoom
	case l.SafeBytes != nil && *l.SafeBytes < *l.FreeBytes:
		f.Disk = OutlookSlotFirst
	default:
		f.Disk, f.SecondsUntilDiskFull = OutlookApproaching, until(*l.FreeBytes, growth)
	}
}

// diskGrowth is bytes a second by which the WAL on the disk grows; false when that cannot be told.
func (l *WALLook) diskGrowth(f *Forecast) (float64, bool) {
	if f.WALBytesPerSecond == nil {
		return 0, false
	}
	for _, s := range l.Slots {
		if !s.Active {
			return *f.WALBytesPerSecond, true
		}
	}
	switch {
	case !l.Exists || l.WALStatus == "lost": // keeps nothing
		return 0, true
	case f.RetainedGrows == nil:
		return 0, false
	case !*f.RetainedGrows:
		return 0, true
	}
	return *f.WALBytesPerSecond - *f.SlotBytesPerSecond, true
}

// until is the time in seconds that it takes to write so many bytes.
func until(room int64, rate float64) *float64 {
	s := max(0, float64(room)) / rate
	return &s
}
