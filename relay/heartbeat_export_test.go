package relay

import (
	"time"

	"github.com/walhook/walhook/relay/delivery"
)

// Pulse is a pulse for tests.
type Pulse struct{ pulse }

func (p *Pulse) Send(token string, now time.Time)                     { p.send(token, now) }
func (p *Pulse) Seen(token string, now time.Time)                     { p.seen(token, now) }
func (p *Pulse) Unsent(token string)                                  { p.unsent(token) }
func (p *Pulse) Reset(now time.Time)                                  { p.reset(now) }
func (p *Pulse) Stands(token string, at delivery.LSN)                 { p.stands(token, at) }
func (p *Pulse) Progress(now time.Time, came bool, idle delivery.LSN) { p.progress(now, came, idle) }
func (p *Pulse) Over(h Health, now time.Time) Health                  { return p.over(h, now) }
