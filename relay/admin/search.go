package admin

import (
	"context"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// examined is the most rows that one page of a search looks at, so that no search in a huge table runs long.
const examined = 20_000

// search is a page of a list that is sorted by id, the newest first. It looks at a bounded number of rows: what it finds
// among them is the page, and the next one goes on behind the last that was looked at.
type search struct {
	before uuid.UUID
	limit  int
	look   int // rows to look at; 0: any number

	found []uuid.UUID
	next  string // cursor
}

// newSearch begins one that shows every row it looks at. Whoever leaves some out sets look.
func newSearch(limit int, cursor string) (*search, error) {
	limit, err := pageLimit(limit)
	if err != nil {
		return nil, err
	}
	s := &search{before: uuid.Max, limit: limit, look: limit + 1}
	if cursor != "" {
		if err := decodeCursor(cursor, &s.before); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// run asks for the ids. The statement returns one row: the ids that are found, the last id that was looked at and how many
// were. Its first parameters are the id before which to look, how many rows to look at and how many to find. It is planned for
// its values: it depends on them which partitions have anything.
func (s *search) run(ctx context.Context, db DB, statement string, args ...any) error {
	var (
		last   *uuid.UUID
		looked int
	)
	err := db.QueryRow(ctx, statement, append([]any{pgx.QueryExecModeCacheDescribe, s.before, s.look, s.limit + 1}, args...)...).Scan(&s.found, &last, &looked)
	switch {
	case err != nil:
		return err
	case len(s.found) > s.limit:
		s.found = s.found[:s.limit]
		s.next = encodeCursor(s.found[s.limit-1])
	case s.look > 0 && looked >= s.look:
		s.next = encodeCursor(*last)
	}
	return nil
}

// checkFilter refuses a text that no row can have.
func checkFilter(field, text string) error {
	if len(text) > 1024 || !storable(text) {
		return invalid(field, "%.60q is refused: give at most 1024 bytes of UTF-8 without NUL", text)
	}
	return nil
}
