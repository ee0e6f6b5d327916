package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"
)

// maxSeconds bounds durations before the database sees them, 10 years: an interval could not hold just any number.
const maxSeconds = 10 * 366 * 24 * 60 * 60

// set is a list of columns with their new values. Columns are ours, never a user's; values are parameters.
type set struct {
	columns, values []string
	args            []any
}

// add assigns a value to a column.
func (s *set) add(column string, value any) { s.addAs(column, "$%d", value) }

// addAs assigns what an SQL expression makes of a value.
func (s *set) addAs(column, expression string, value any) {
	s.args = append(s.args, value)
	s.columns = append(s.columns, column)
	s.values = append(s.values, fmt.Sprintf(expression, len(s.args)))
}

// assignments makes columns out of a change, after the checks that the database cannot make, or whose refusal would not name
// the field.
func (d *Desk) assignments(ctx context.Context, q queries, id uuid.UUID, c Change, p present) (set, error) {
	var s set
	for _, add := range []func(*set) error{c.addTexts, c.addNumbers, c.addSeconds, c.addLists} {
		if err := add(&s); err != nil {
			return s, err
		}
	}
	if c.Filters != nil && d.CheckFilters != nil {
		if err := d.CheckFilters(c.Filters); err != nil {
			return s, invalid("filters", "%s", err)
		}
	}
	if c.Headers != nil {
		headers, err := mergeHeaders(*c.Headers, p.headers)
		if err != nil {
			return s, err
		}
		s.add("headers", headers)
	}
	if c.Active != nil {
		s.add("is_active", *c.Active)
	}
	if c.Secret == nil {
		return s, nil
	}
	if *c.Secret == "" { // signed no more, with the old one neither
		s.add("secret", nil)
		s.add("previous_secret", nil)
		s.add("previous_secret_expires_at", nil)
		return s, nil
	}
	signature := p.signature
	if c.Signature != nil {
		signature = *c.Signature
	}
	stored, err := d.storedSecret(ctx, q, id, *c.Secret, signature)
	s.add("secret", stored)
	return s, err
}

func (c *Change) addTexts(s *set) error {
	for _, f := range []struct {
		field string
		value *string
	}{
		{"name", c.Name}, {"description", c.Description}, {"url", c.URL}, {"signature", c.Signature}, {"payload_format", c.PayloadFormat},
		{"ordering", c.Ordering}, {"verification", c.Verification},
	} {
		if f.value == nil {
			continue
		}
		if err := checkText(f.field, *f.value); err != nil {
			return err
		}
		s.add(f.field, *f.value)
	}
	return nil
}

func (c *Change) addNumbers(s *set) error {
	for _, f := range []struct {
		field string
		value *int
	}{
		{"payload_version", c.PayloadVersion}, {"max_retries", c.MaxRetries}, {"max_in_flight", c.MaxInFlight},
		{"rate_limit", c.RateLimit}, {"batch_size", c.BatchSize},
	} {
		switch {
		case f.value == nil:
		case *f.value < math.MinInt32 || *f.value > math.MaxInt32:
			return invalid(f.field, "%d is refused: it is no number of 32 bits", *f.value)
		case f.field == "rate_limit" && *f.value == 0:
			s.add("rate_limit", nil)
		default:
			s.add(f.field, *f.value)
		}
	}
	return nil
}

func (c *Change) addSeconds(s *set) error {
	for _, f := range []struct {
		field string
		value *float64
	}{{"retry_delay", c.RetryDelay}, {"timeout", c.Timeout}, {"batch_wait", c.BatchWait}} {
		if f.value == nil {
			continue
		}
		if !(math.Abs(*f.value) <= maxSeconds) { // NaN is not either
			return invalid(f.field, "%v is refused: give seconds, at most %d", *f.value, maxSeconds)
		}
		s.addAs(f.field, "make_interval(secs => $%d)", *f.value)
	}
	return nil
}

func (c *Change) addLists(s *set) error {
	if c.Events != nil {
		for _, name := range *c.Events {
			if err := checkText("events", name); err != nil {
				return err
			}
		}
		s.add("event_types", append([]string{}, *c.Events...)) // never null
	}
	if c.Filters != nil {
		if !json.Valid(c.Filters) || !bytes.HasPrefix(bytes.TrimSpace(c.Filters), []byte("{")) {
			return invalid("filters", `%s is refused: write a JSON object as {"department": "cardiology"}`, excerpt(string(c.Filters)))
		}
		s.add("filters", c.Filters)
	}
	return nil
}

// mergeHeaders is given, in which Redacted stands for what is stored under that name, in whatever case.
func mergeHeaders(given, stored map[string]string) (map[string]string, error) {
	merged := make(map[string]string, len(given))
	for _, name := range slices.Sorted(maps.Keys(given)) {
		value := given[name]
		if checkText("headers", name) != nil || checkText("headers", value) != nil {
			return nil, invalid("headers", "%q: "+nulIsNotStorable, name)
		}
		if value == Redacted {
			kept, found := lookUpHeader(stored, name)
			if !found {
				return nil, invalid("headers", "%q has the value %s, which stands for the one that is stored, and there is none: give the value, or leave the header out", excerpt(name), Redacted)
			}
			value = kept
		}
		merged[name] = value
	}
	return merged, nil
}

// lookUpHeader prefers the name as it is written, since the table may have several that differ in case.
func lookUpHeader(headers map[string]string, name string) (string, bool) {
	if value, found := headers[name]; found {
		return value, true
	}
	for _, other := range slices.Sorted(maps.Keys(headers)) {
		if strings.EqualFold(other, name) {
			return headers[other], true
		}
	}
	return "", false
}

// checkText refuses what Postgres cannot store.
func checkText(field, text string) error {
	if !storable(text) {
		return invalid(field, nulIsNotStorable)
	}
	return nil
}

// placed names the field of a refusal for which Postgres names none: only JSON can be malformed for it by now, and names and
// values of headers have been looked at.
func (c *Change) placed(err error) error {
	if c.Filters != nil {
		return about("filters", err)
	}
	return err
}

// shown is how a message shows a value that the change gives; nothing where it may be a secret or is too long to help.
func (c *Change) shown(field string) string {
	switch field {
	case "name":
		return quoted(c.Name)
	case "url":
		return withoutPassword(quoted(c.URL))
	case "signature":
		return quoted(c.Signature)
	case "payload_format":
		return quoted(c.PayloadFormat)
	case "ordering":
		return quoted(c.Ordering)
	case "verification":
		return quoted(c.Verification)
	case "events":
		return quotedList(c.Events)
	}
	return c.shownNumber(field)
}

func (c *Change) shownNumber(field string) string {
	seconds := map[string]*float64{"retry_delay": c.RetryDelay, "timeout": c.Timeout, "batch_wait": c.BatchWait}
	if value := seconds[field]; value != nil {
		return strconv.FormatFloat(*value, 'g', -1, 64)
	}
	numbers := map[string]*int{"payload_version": c.PayloadVersion, "max_retries": c.MaxRetries, "max_in_flight": c.MaxInFlight,
		"rate_limit": c.RateLimit, "batch_size": c.BatchSize}
	if value := numbers[field]; value != nil {
		return strconv.Itoa(*value)
	}
	return ""
}

func quoted(text *string) string {
	if text == nil {
		return ""
	}
	return strconv.Quote(excerpt(*text))
}

func quotedList(list *[]string) string {
	if list == nil {
		return ""
	}
	return excerpt(fmt.Sprintf("%q", *list))
}

// excerpt is the beginning of a text, for messages.
func excerpt(text string) string {
	const most = 100
	if utf8.RuneCountInString(text) <= most {
		return text
	}
	return string([]rune(text)[:most]) + "…"
}

// withoutPassword hides what stands before the last @ of a URL that is shown: it may be credentials, which is one reason to
// refuse it.
func withoutPassword(url string) string {
	at := strings.LastIndexByte(url, '@')
	if at < 0 {
		return url
	}
	return `"` + Redacted + url[at:]
}
