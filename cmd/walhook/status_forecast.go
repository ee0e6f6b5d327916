package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/walhook/walhook/relay/ops"
)

// writeForecast makes the rows that say where slot and disk are heading, and what holds them back.
func writeForecast(f *ops.Forecast, row func(name, format string, args ...any)) {
	row("WAL", "%s", ratesText(f))
	row("slot lost", "%s", outlookText(f.Slot, f.SecondsUntilLost))
	row("disk full", "%s%s", outlookText(f.Disk, f.SecondsUntilDiskFull), freeText(f.FreeBytes))
	for i := range f.HeldBackBy {
		row("held back by", "%s", holderText(&f.HeldBackBy[i]))
	}
	if f.Blind {
		row("", "others' transactions cannot be seen: this role is no member of pg_monitor")
	}
}

func ratesText(f *ops.Forecast) string {
	if f.WALBytesPerSecond == nil {
		return "rate unknown: no sample to compare with yet"
	}
	text := rateText(*f.WALBytesPerSecond) + " written"
	if f.SlotBytesPerSecond != nil {
		text += ", " + rateText(*f.SlotBytesPerSecond) + " let go of by the slot"
	}
	return text + ", over the last " + spanText(f.OverSeconds)
}

func rateText(rate float64) string {
	n := int64(rate)
	return byteText(&n) + "/s"
}

// outlookText says when, or why not.
func outlookText(o ops.Outlook, seconds *float64) string {
	if o == ops.OutlookApproaching && seconds != nil {
		return "in " + spanText(*seconds) + " at this rate"
	}
	return map[ops.Outlook]string{
		ops.OutlookLost:        "it is",
		ops.OutlookSteady:      "never at this rate",
		ops.OutlookUnlimited:   "never: max_slot_wal_keep_size is not set",
		ops.OutlookSlotFirst:   "never: max_slot_wal_keep_size takes the slot before",
		ops.OutlookUnknownRate: "unknown: no sample to compare with yet",
		ops.OutlookUnknownRoom: "unknown: set replication.wal_disk_size to the room that there is for WAL",
	}[o]
}

func freeText(free *int64) string {
	if free == nil {
		return ""
	}
	return ", " + byteText(free) + " free"
}

func holderText(h *ops.Holder) string {
	var known []string
	if h.Bytes != nil {
		known = append(known, byteText(h.Bytes))
	}
	if h.Since != nil {
		known = append(known, "since "+h.Since.Local().Format(time.DateTime))
	}
	text := printable(h.Text)
	if len(known) > 0 {
		text += " (" + strings.Join(known, ", ") + ")"
	}
	return text
}

// spanText writes a time as people say it: two units at most. Beyond ten years nobody counts.
func spanText(seconds float64) string {
	const day, year = 24 * time.Hour, 365 * 24 * time.Hour
	if seconds >= (10 * year).Seconds() {
		return "more than 10 years"
	}
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Hour:
		return d.Round(time.Second).String()
	case d < 2*day:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
	return fmt.Sprintf("%d days", int64(d.Round(day)/day))
}
