// Package ui is the dashboard: pages rendered here from embedded templates, with updates by server-sent events. It holds
// nothing of its own: what it shows comes from package admin, and what people do there goes through it.
package ui

import (
	"context"
	"net/http"

	"github.com/rs/zerolog"

	"github.com/walhook/walhook/relay/admin"
)

// Options are what the dashboard is made with.
type Options struct {
	Store   *admin.Store
	Gate    *admin.Gate
	Prefix  string // path prefix that it is mounted under, as /walhook; empty: none. The handler gets paths without it.
	Version string // of the program
	Log     zerolog.Logger

	// State tells what this process's relay does, for the head of every page.
	State func() State
	// Forecast looks at where the slot is heading.
	Forecast func(context.Context) (Forecast, error)
	// Doctor looks at everything that can be wrong. It takes a second or more.
	Doctor func(context.Context) []Finding
}

// State is what this process's relay does.
type State struct {
	Ready              bool
	Name               string // running, standby, halted, …
	Code, What, Remedy string // of the problem; empty: none
}

// Forecast is where the slot is heading, and what holds WAL back.
type Forecast struct {
	WALRate, SlotRate *float64 // bytes a second: of WAL, and of the slot's way through it; nil: unknown
	// LostIn and FullIn are seconds until the slot is lost, and until the disk is full; nil: the outlook says why.
	LostIn, FullIn           *float64
	SlotOutlook, DiskOutlook string // lost, approaching, steady, unlimited, slot_first, unknown_rate, unknown_room
	Holders                  []Holder
	Blind                    bool // others' transactions cannot be seen, for want of pg_monitor
}

// Holder is something that holds WAL back.
type Holder struct {
	Code, Text string
	Bytes      *int64
}

// Finding is one of the doctor's.
type Finding struct {
	Code, Severity, What, Explanation, Remedy string // severity: error, warning, info, ok
}

// UI is the dashboard.
type UI struct {
	Options
	pages pages
	hub   *hub
}

// New makes the dashboard's handler. It answers every path: those that it does not know with a page that says so.
func New(o Options) http.Handler { return newUI(o).handler() }

func newUI(o Options) *UI {
	u := &UI{Options: o, pages: parsePages(o.Prefix)}
	u.hub = newHub(func(ctx context.Context, token string) error {
		_, err := o.Store.Authenticate(ctx, token)
		return err
	}, o.Log)
	return u
}
