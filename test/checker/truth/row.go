package truth

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"
)

// scanner reads a line from its beginning; text is what is left.
type scanner struct{ text string }

// skip goes past a prefix and reports whether it was there.
func (s *scanner) skip(prefix string) bool {
	rest, found := strings.CutPrefix(s.text, prefix)
	s.text = rest
	return found
}

// relation reads a qualified name such as outbox.events or outbox."Events".
func (s *scanner) relation() (schema, name string, err error) {
	if schema, err = s.identifier(); err != nil {
		return "", "", err
	}
	if !s.skip(".") {
		return "", "", errors.New("a relation's name is not qualified")
	}
	name, err = s.identifier()
	return schema, name, err
}

// identifier reads a name, which Postgres quotes unless it has only lower-case letters, digits and _.
func (s *scanner) identifier() (string, error) {
	if strings.HasPrefix(s.text, `"`) {
		return s.quoted('"')
	}
	bare := strings.TrimLeft(s.text, "abcdefghijklmnopqrstuvwxyz0123456789_")
	name := s.text[:len(s.text)-len(bare)]
	s.text = bare
	if name == "" {
		return "", errors.New("a name is missing")
	}
	return name, nil
}

// quoted reads what is between quotes. The quote itself is doubled inside; nothing else is escaped.
func (s *scanner) quoted(quote byte) (string, error) {
	text := s.text[1:]
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] != quote:
		case i+1 < len(text) && text[i+1] == quote:
			i++
		default:
			s.text = text[i+1:]
			q := string(quote)
			return strings.ReplaceAll(text[:i], q+q, q), nil
		}
	}
	return "", fmt.Errorf("a quote %c is not closed", quote)
}

// unchanged says that an update left a large value alone, so that the new row does not repeat it.
const unchanged = "unchanged-toast-datum"

// value is one column of a row.
type value struct {
	text      string
	null      bool
	unchanged bool
}

// row reads the columns to the end of the line. In an update's new row what was left alone is taken from the old one.
func (s *scanner) row() (*row, error) {
	if s.text == " (no-tuple-data)" {
		return nil, errors.New("the row's data is missing")
	}
	old := map[string]value{}
	if s.skip(" old-key:") {
		var err error
		if old, err = s.columns(" new-tuple:"); err != nil {
			return nil, err
		}
	}
	columns, err := s.columns("")
	if err != nil {
		return nil, err
	}
	for name, v := range columns {
		if v.unchanged {
			columns[name] = old[name]
		}
		if _, known := old[name]; v.unchanged && !known {
			return nil, fmt.Errorf("column %s was left alone, and the old row is missing", name)
		}
	}
	return &row{columns: columns}, nil
}

// columns reads columns of the form ` name[type]:value` up to a delimiter; the empty one is the end of the line.
func (s *scanner) columns(delimiter string) (map[string]value, error) {
	columns := make(map[string]value)
	for {
		if delimiter != "" && s.skip(delimiter) || delimiter == "" && s.text == "" {
			return columns, nil
		}
		if !s.skip(" ") {
			return nil, fmt.Errorf("a column is missing after %d others", len(columns))
		}
		name, err := s.identifier()
		if err != nil {
			return nil, err
		}
		_, rest, found := strings.Cut(s.text, "]:") // a type may be text[], but has no colon behind
		if !found || !s.skip("[") {
			return nil, fmt.Errorf("the type of column %s is missing", name)
		}
		s.text = rest
		if columns[name], err = s.value(); err != nil {
			return nil, fmt.Errorf("column %s: %w", name, err)
		}
	}
}

// value reads a literal: quoted, or a bare number, boolean or one of two words.
func (s *scanner) value() (value, error) {
	if strings.HasPrefix(s.text, "'") {
		text, err := s.quoted('\'')
		return value{text: text}, err
	}
	end := strings.IndexByte(s.text, ' ')
	if end < 0 {
		end = len(s.text)
	}
	word := s.text[:end]
	s.text = s.text[end:]
	switch word {
	case "":
		return value{}, errors.New("the value is missing")
	case "null":
		return value{null: true}, nil
	case unchanged:
		return value{unchanged: true}, nil
	}
	return value{text: word}, nil
}

// row gives a row's columns their types. err is the first thing that was wrong.
type row struct {
	columns map[string]value
	err     error
}

func (r *row) fail(name string, err error) {
	if err != nil && r.err == nil {
		r.err = fmt.Errorf("column %s: %w", name, err)
	}
}

// nullable returns a text, empty for null.
func (r *row) nullable(name string) string {
	v, found := r.columns[name]
	if !found {
		r.fail(name, errors.New("is missing"))
	}
	return v.text
}

func (r *row) text(name string) string {
	if r.columns[name].null {
		r.fail(name, errors.New("is null"))
	}
	return r.nullable(name)
}

func (r *row) uuid(name string) uuid.UUID {
	id, err := uuid.Parse(r.text(name))
	r.fail(name, err)
	return id
}

func (r *row) int(name string) int {
	n, err := strconv.Atoi(r.text(name))
	r.fail(name, err)
	return n
}

func (r *row) bool(name string) bool {
	text := r.text(name)
	if text != "true" && text != "false" {
		r.fail(name, fmt.Errorf("%.20q is not a boolean", text))
	}
	return text == "true"
}

func (r *row) array(name string) []string {
	var elements []string
	text := []byte(r.text(name))
	r.fail(name, pgtype.NewMap().Scan(pgtype.TextArrayOID, pgtype.TextFormatCode, text, &elements))
	return elements
}

// timestamptz is how Postgres writes a time, for a session whose time zone has whole hours, as UTC.
const timestamptz = "2006-01-02 15:04:05.999999-07"

// moment reads a time; null is the zero one.
func (r *row) moment(name string) time.Time {
	text := r.nullable(name)
	if text == "" {
		return time.Time{}
	}
	at, err := time.Parse(timestamptz, text)
	r.fail(name, err)
	return at.UTC()
}

// milliseconds reads an interval and rounds it up. A month has 30 days and a day 24 hours, as when Postgres compares.
func (r *row) milliseconds(name string) int {
	var i pgtype.Interval
	text := []byte(r.text(name))
	r.fail(name, pgtype.NewMap().Scan(pgtype.IntervalOID, pgtype.TextFormatCode, text, &i))
	const day = 24 * time.Hour
	days := time.Duration(i.Months)*30 + time.Duration(i.Days)
	total := days*day + time.Duration(i.Microseconds)*time.Microsecond
	return int((total + time.Millisecond - 1) / time.Millisecond)
}
