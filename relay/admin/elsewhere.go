package admin

import (
	"cmp"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// staysPut refuses a change that would send the values of headers that are not shown to another server than they were given
// for: whoever may change a webhook could read them there.
func (c *Change) staysPut(p present) error {
	if c.URL == nil || serverOf(*c.URL) == serverOf(p.url) {
		return nil
	}
	for _, name := range c.keeps(p) {
		if shown, found := lookUpHeader(p.shown, name); found && shown == Redacted {
			return invalid("headers", "%q has a value that is not shown, and %s is another server: give its value again, or leave the header out",
				excerpt(name), c.shown("url"))
		}
	}
	return nil
}

// keeps are the names of the headers whose stored value a change leaves alone.
func (c *Change) keeps(p present) []string {
	if c.Headers == nil {
		return slices.Sorted(maps.Keys(p.shown))
	}
	var names []string
	for _, name := range slices.Sorted(maps.Keys(*c.Headers)) {
		if (*c.Headers)[name] == Redacted {
			names = append(names, name)
		}
	}
	return names
}

// serverOf is what of a URL says who gets the requests, and whether others can read them on the way.
func serverOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return address
	}
	scheme := strings.ToLower(u.Scheme)
	usual := map[string]string{"http": "80", "https": "443"}[scheme]
	return scheme + "://" + strings.ToLower(u.Hostname()) + ":" + cmp.Or(u.Port(), usual)
}
