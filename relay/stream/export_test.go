package stream

import "time"

// Age makes the connection believe that it has waited longer for a byte than it has.
func (c *Conn) Age(by time.Duration) { c.lastRead = c.lastRead.Add(-by) }

// Interval is the time between two statuses.
func (c *Conn) Interval() time.Duration { return c.interval }

// Names counts the interned strings.
func (d *Decoder) Names() int { return len(d.names) }

// Unstorable says why Postgres would not take a text as jsonb.
var Unstorable = unstorable
