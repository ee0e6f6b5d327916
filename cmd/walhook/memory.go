package main

import (
	"os"
	"runtime/debug"
)

// gcPercent trades memory for CPU. The relay keeps little alive, some ten megabytes of unrecorded deliveries,
// and makes much garbage, of which net/http makes most: at Go's 100 the collector takes a tenth of its CPU time.
const gcPercent = 200

// tuneMemory sets the collector's pace, unless whoever started the process has set it with GOGC.
func tuneMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}
