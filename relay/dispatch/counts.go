package dispatch

// Counts is what the dispatcher holds at a moment.
type Counts struct {
	InFlight                            int // deliveries under way
	Claimed, ClaimedBytes               int // deliveries from the queue that are held, and the size of their events
	Active, Inactive, Invalid, Circuits int // lanes, by state; circuits that are open
}

// Counts looks at all lanes.
func (d *Dispatcher) Counts() Counts {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := Counts{InFlight: d.inFlight, Claimed: d.claimed, ClaimedBytes: d.bytes}
	for _, l := range d.lanes {
		switch {
		case l.settings.Invalid != "":
			c.Invalid++
		case !l.settings.Active:
			c.Inactive++
		default:
			c.Active++
		}
		if l.open {
			c.Circuits++
		}
	}
	return c
}
