package ui

import "time"

// forecastView is the forecast in words.
type forecastView struct {
	Forecast
	At         time.Time
	Slot, Disk badgedText
}

// WALRateText is how fast WAL is written; empty: unknown.
func (f forecastView) WALRateText() string { return rate(f.WALRate) }

// SlotRateText is how fast the slot lets go of WAL; empty: unknown.
func (f forecastView) SlotRateText() string { return rate(f.SlotRate) }

func rate(bytesPerSecond *float64) string {
	if bytesPerSecond == nil {
		return ""
	}
	return text("forecast.per_second", sizeOf(*bytesPerSecond))
}

// badgedText is a sentence with how bad it is.
type badgedText struct {
	Badge badge
	Text  string
}

func newForecastView(f Forecast, at time.Time) forecastView {
	return forecastView{Forecast: f, At: at, Slot: outlook("slot", f.SlotOutlook, f.LostIn), Disk: outlook("disk", f.DiskOutlook, f.FullIn)}
}

// soon is how many seconds ahead of a loss people should act.
const soon = 86400

// outlook says what happens to slot or disk: each outlook has its sentence.
func outlook(what, outlook string, seconds *float64) badgedText {
	key := "forecast." + what + "." + outlook
	switch outlook {
	case "lost":
		return badgedText{badge{"bad", text("forecast.lost")}, text(key)}
	case "approaching":
		if seconds == nil {
			return badgedText{badge{"warn", text("forecast.approaching")}, text(key + "_some")}
		}
		class := "warn"
		if *seconds < soon {
			class = "bad"
		}
		return badgedText{badge{class, text("forecast.approaching")}, text(key, duration(*seconds))}
	case "steady", "unlimited", "slot_first":
		return badgedText{badge{"ok", text("forecast.never")}, text(key)}
	case "unknown_rate", "unknown_room":
		return badgedText{badge{"idle", text("forecast.unknown")}, text("forecast." + outlook)}
	}
	return badgedText{badge{"idle", text("forecast.unknown")}, outlook}
}

// doctorView is what the doctor found, by severity.
type doctorView struct {
	At     time.Time
	Groups []findingGroup
}

// findingGroup are findings of one severity.
type findingGroup struct {
	Badge    badge
	Findings []Finding
}

// newDoctorView groups the findings, the worst first; what has an unknown severity comes last.
func newDoctorView(all []Finding, at time.Time) doctorView {
	v := doctorView{At: at}
	known := map[string]bool{}
	for _, s := range []struct{ severity, class string }{{"error", "bad"}, {"warning", "warn"}, {"info", "idle"}, {"ok", "ok"}} {
		known[s.severity] = true
		v.add(badge{s.class, text("severity." + s.severity)}, all, func(f Finding) bool { return f.Severity == s.severity })
	}
	v.add(badge{"idle", text("severity.other")}, all, func(f Finding) bool { return !known[f.Severity] })
	return v
}

func (v *doctorView) add(b badge, all []Finding, belongs func(Finding) bool) {
	g := findingGroup{Badge: b}
	for _, f := range all {
		if belongs(f) {
			g.Findings = append(g.Findings, f)
		}
	}
	if len(g.Findings) > 0 {
		v.Groups = append(v.Groups, g)
	}
}
