package ops

import (
	"context"
	"fmt"
	"time"
)

// release is a major version of Postgres: its last day (the date of its final minor release) and its latest minor
// release known when this program was made.
type release struct {
	major, minor int
	ends         time.Time
}

// releases are from https://www.postgresql.org/support/versioning/, with the minor releases of 2026-08-13. Extend it
// with every release of walhook.
var releases = []release{
	{14, 24, time.Date(2026, 11, 12, 0, 0, 0, 0, time.UTC)},
	{15, 19, time.Date(2027, 11, 11, 0, 0, 0, 0, time.UTC)},
	{16, 15, time.Date(2028, 11, 9, 0, 0, 0, 0, time.UTC)},
	{17, 11, time.Date(2029, 11, 8, 0, 0, 0, 0, time.UTC)},
	{18, 6, time.Date(2030, 11, 14, 0, 0, 0, 0, time.UTC)},
}

// upgradeAhead is how long before the end of a major version its upgrade should be thought of.
const upgradeAhead = 180 * 24 * time.Hour

// lookAtVersion judges how old the server's release is.
func (d *doctor) lookAtVersion(context.Context) error {
	major, minor := d.server/10000, d.server%10000
	for _, r := range releases {
		if r.major != major {
			continue
		}
		const upgrade = "upgrade to a later major version (pg_upgrade; a slot survives it from 17 on)"
		if until := r.ends.Sub(d.Now()); until < 0 {
			d.found("version_end_of_life", fmt.Sprintf("Postgres %d has not been maintained since %s", major, r.ends.Format(time.DateOnly)), upgrade)
		} else if until < upgradeAhead {
			d.foundAs(SeverityInfo, "version_end_of_life", fmt.Sprintf("Postgres %d is maintained until %s only", major, r.ends.Format(time.DateOnly)), upgrade)
		}
		if minor < r.minor {
			d.found("version_minor", fmt.Sprintf("Postgres is %d.%d, and %d.%d is known", major, minor, major, r.minor),
				fmt.Sprintf("install %d.%d or later and restart Postgres: a minor release changes no data", major, r.minor))
		}
	}
	return nil
}
