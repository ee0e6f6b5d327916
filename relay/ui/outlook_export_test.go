package ui

import "time"

// Outlooks are what a forecast says of slot and disk.
func Outlooks(f Forecast) (slot, disk string) {
	v := newForecastView(f, time.Time{})
	return v.Slot.Text + v.Slot.Badge.Text, v.Disk.Text + v.Disk.Badge.Text
}
