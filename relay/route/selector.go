package route

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// selector says which events a bucket takes: those of one tenant whose type is the name, or begins with
// it. A prefix ends in a dot; the empty prefix takes all but the relay's own (ownTypes).
type selector struct {
	tenant string
	name   string
	prefix bool
}

// maxTypeSize bounds event types and prefixes that subscriptions name, in bytes, and with that how much of
// a long event type is searched for prefixes.
const maxTypeSize = 1 << 10

// ownTypes begins the types of the relay's own events, such as its alerts. Only those who name them get them: nobody
// who takes all events of an application expects these, and a subscription that fails would be fed by what is told of it.
const ownTypes = "walhook."

// parseSelectors reads the event types of a subscription, each once. A star takes everything but the relay's own
// events, so that other types beside it add nothing unless they name those.
func parseSelectors(tenant string, eventTypes []string) ([]selector, error) {
	all := []selector{{tenant: tenant, prefix: true}}
	if len(eventTypes) == 0 {
		return all, nil
	}
	selectors := make([]selector, 0, len(eventTypes))
	for _, text := range eventTypes {
		s, err := parseSelector(text)
		if err != nil {
			return nil, err
		}
		s.tenant = tenant
		selectors = append(selectors, s)
	}
	if slices.Contains(selectors, all[0]) {
		selectors = slices.DeleteFunc(selectors, func(s selector) bool { return s != all[0] && !strings.HasPrefix(s.name, ownTypes) })
	}
	slices.SortFunc(selectors, selector.compare)
	return slices.Compact(selectors), nil
}

// compare orders the selectors of one tenant. A name may be there exactly and as a prefix ("a." and
// "a.*"), which are two.
func (s selector) compare(o selector) int {
	switch {
	case s.name != o.name:
		return cmp.Compare(s.name, o.name)
	case s.prefix == o.prefix:
		return 0
	case o.prefix:
		return -1
	}
	return 1
}

func parseSelector(text string) (selector, error) {
	name, prefix := strings.CutSuffix(text, "*")
	switch {
	case text == "":
		return selector{}, fmt.Errorf("event type \"\": it is empty; leave it out of the list, since an empty list means all")
	case len(text) > maxTypeSize:
		return selector{}, fmt.Errorf("event type %s: it is %d bytes long, at most %d are allowed", quote(text), len(text), maxTypeSize)
	case strings.Contains(name, "*"), prefix && name != "" && !strings.HasSuffix(name, "."), name == ".":
		return selector{}, fmt.Errorf("event type %s: a star stands alone or after the last dot of a prefix, as in \"patient.*\"", quote(text))
	}
	return selector{name: name, prefix: prefix}, nil
}
