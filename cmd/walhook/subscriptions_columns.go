package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/walhook/walhook/config"
	"github.com/walhook/walhook/relay/route"
)

// column is one of outbox.subscriptions that a flag sets; the flag has its name with dashes.
type column struct {
	name, kind, help string
	parse            func(string) (any, error)
}

// subscriptionColumns are all that users set, but for secrets and headers, which have flags of their own.
var subscriptionColumns = []column{
	{"name", "text", "what people call it", parseText},
	{"description", "text", "what it is for", parseText},
	{"url", "text", "where to deliver: http or https", parseText},
	{"event_types", "names", "exact names or prefixes as patient.*, separated by commas; none means all", parseNames},
	{"filters", "JSON", "object of conditions on the payload, all of which must hold", parseFilters},
	{"signature", "text", "sha256, standard, standard-ed25519, github, stripe, shopify, slack or none", parseText},
	{"payload_format", "text", "envelope, standard, cloudevents, cloudevents-binary or raw", parseText},
	{"payload_version", "number", "version of the envelope", parseNumber},
	{"max_retries", "number", "retries after the first attempt, 0 to 10", parseNumber},
	{"retry_delay", "duration", "before the first retry; doubles", parsePeriod},
	{"timeout", "duration", "of a whole attempt, at most 300s", parsePeriod},
	{"ordering", "text", "none, key (events with the same key in order) or strict (all in order)", parseText},
	{"max_in_flight", "number", "requests at a time, 1 to 1000", parseNumber},
	{"rate_limit", "number", "requests a second; 0 means no limit", parseLimit},
	{"batch_size", "number", "deliveries a request, 1 to 1000", parseNumber},
	{"batch_wait", "duration", "how long a batch may wait to fill", parsePeriod},
	{"verification", "text", "handshake that the receiver must pass first: none, cloudevents or slack", parseText},
	{"is_active", "bool", "whether anything is delivered", parseBool},
}

// backfillColumn is for new subscriptions only.
var backfillColumn = column{"backfill_from", "time", "deliver kept events since then as well: RFC 3339, or how long ago, as 2h or 7d", parseMomentValue}

// columnFlag is a flag that holds the column's value once it is given.
type columnFlag struct {
	column *column
	text   string
	value  any
	given  bool
}

// Set checks the value's form; what it may be, the database knows.
func (f *columnFlag) Set(text string) (err error) {
	f.value, err = f.column.parse(text)
	f.text, f.given = text, err == nil
	return err
}

// String is the value as it was given.
func (f *columnFlag) String() string { return f.text }

// Type is what help shows for the value.
func (f *columnFlag) Type() string { return f.column.kind }

// columnFlags registers a flag for each column.
func columnFlags(c *cobra.Command, columns ...column) []*columnFlag {
	flags := make([]*columnFlag, len(columns))
	for i := range columns {
		flags[i] = &columnFlag{column: &columns[i]}
		added := c.Flags().VarPF(flags[i], strings.ReplaceAll(columns[i].name, "_", "-"), "", columns[i].help)
		if columns[i].kind == "bool" {
			added.NoOptDefVal = "true"
		}
	}
	return flags
}

// assignment is a column with its new value, and how a message shows that.
type assignment struct {
	column string
	value  any
	shown  string
}

// assigned are the values that were given.
func assigned(flags []*columnFlag) []assignment {
	var list []assignment
	for _, f := range flags {
		if !f.given {
			continue
		}
		shown := f.text
		if f.column.name == "url" {
			shown = withoutPassword(shown)
		}
		list = append(list, assignment{f.column.name, f.value, quote(shown)})
	}
	return list
}

func parseText(text string) (any, error) {
	if strings.ContainsRune(text, 0) {
		return nil, errors.New("it has a NUL byte, which Postgres cannot store: leave that out")
	}
	return text, nil
}

func parseNames(text string) (any, error) {
	names := []string{}
	for name := range strings.SplitSeq(text, ",") {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	return names, nil
}

func parseObject(text string) (any, error) {
	var object map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &object); err != nil || object == nil {
		return nil, errors.New(`it is no JSON object: write it as '{"department": "cardiology", "amount_min": 1000}'`)
	}
	if strings.Contains(text, `\u0000`) {
		return nil, errors.New(`it has \u0000, which Postgres cannot store: leave that out`)
	}
	return text, nil
}

// parseFilters refuses what would only turn out invalid when the relay reads it.
func parseFilters(text string) (any, error) {
	object, err := parseObject(text)
	if err == nil {
		_, err = route.Compile([]byte(text))
	}
	return object, err
}

func parseNumber(text string) (any, error) {
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		return nil, errors.New("it is no whole number: write digits only")
	}
	return int32(n), nil
}

// parseLimit makes 0 the absence of a limit.
func parseLimit(text string) (any, error) {
	n, err := parseNumber(text)
	if n == int32(0) {
		return nil, nil
	}
	return n, err
}

func parsePeriod(text string) (any, error) {
	d, err := config.ParseDuration(text)
	return d, err
}

func parseBool(text string) (any, error) {
	b, err := strconv.ParseBool(text)
	if err != nil {
		return nil, errors.New("write true or false")
	}
	return b, nil
}

func parseMomentValue(text string) (any, error) {
	at, err := parseMoment(text, time.Now())
	return at, err
}

// parseMoment reads a time: RFC 3339, or how long before now.
func parseMoment(text string, now time.Time) (time.Time, error) {
	if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return at, nil
	}
	if ago, err := config.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	return time.Time{}, fmt.Errorf("%s is no time: write it as 2026-01-31T12:00:00Z, or how long ago as 2h or 7d", quote(text))
}

// momentFlag is a time on the command line.
type momentFlag struct {
	text string
	at   *time.Time // nil: not given
}

var _ pflag.Value = (*momentFlag)(nil)

// Set reads the time.
func (f *momentFlag) Set(text string) error {
	at, err := parseMoment(text, time.Now())
	if err != nil {
		return err
	}
	f.text, f.at = text, &at
	return nil
}

// String is the time as it was given.
func (f *momentFlag) String() string { return f.text }

// Type is what help shows for the value.
func (f *momentFlag) Type() string { return "time" }

// headerFlags are extra request headers: --header as often as needed, all of which replace what was there.
type headerFlags struct {
	lines []string
	none  bool
}

func (h *headerFlags) register(c *cobra.Command, update bool) {
	c.Flags().StringArrayVar(&h.lines, "header", nil, "extra request header as 'Name: value'; may be repeated")
	if update {
		c.Flags().BoolVar(&h.none, "no-headers", false, "send no extra headers any more")
	}
}

// assignment reads the headers. Messages show names only, because values may be credentials.
func (h *headerFlags) assignment() ([]assignment, error) {
	if h.none && len(h.lines) > 0 {
		return nil, fmt.Errorf("%w: --header and --no-headers exclude each other: give one", errUsage)
	}
	if len(h.lines) == 0 && !h.none {
		return nil, nil
	}
	headers, names := map[string]string{}, make([]string, 0, len(h.lines))
	known := map[string]bool{} // in lower case: HTTP takes A and a for one name
	for i, line := range h.lines {
		name, value, ok := strings.Cut(line, ":")
		name = strings.TrimSpace(name)
		if !ok || name == "" {
			return nil, fmt.Errorf("%w: --header number %d is no 'Name: value'", errUsage, i+1)
		}
		if known[strings.ToLower(name)] {
			return nil, fmt.Errorf("%w: --header %s is given twice: a request has one of each", errUsage, quote(name))
		}
		known[strings.ToLower(name)] = true
		headers[name], names = strings.TrimSpace(value), append(names, name)
	}
	text, err := json.Marshal(headers)
	if err != nil {
		return nil, fmt.Errorf("write headers: %w", err)
	}
	return []assignment{{"headers", string(text), quote(strings.Join(names, ", "))}}, nil
}
