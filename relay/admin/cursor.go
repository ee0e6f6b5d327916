package admin

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
)

const (
	// cursorVersion is the first element of every cursor: one of another version of the program is refused, not misread.
	cursorVersion = 1
	// maxCursor bounds a cursor, in bytes: what is longer holds no sort key of ours (the longest is an event type's name of
	// 255 characters, each of which JSON may escape).
	maxCursor = 1024
)

// encodeCursor makes the cursor that continues behind a row with these sort keys. It carries nothing else, above all no
// tenant: whoever forges one gets what they could have got anyway. It is base64url of a JSON array, the version first.
func encodeCursor(parts ...any) string {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false) // for brevity
	if err := enc.Encode(append([]any{cursorVersion}, parts...)); err != nil {
		panic(fmt.Sprintf("encode a cursor of %v: %v", parts, err)) // sort keys are ids, names, numbers and times
	}
	return base64.RawURLEncoding.EncodeToString(bytes.TrimSpace(text.Bytes()))
}

// decodeCursor reads the sort keys of a cursor into pointers to as many values. Anything that encodeCursor did not make of
// such values is Invalid, an empty cursor as well: ask only when there is one.
func decodeCursor(cursor string, into ...any) error {
	if !readCursor(cursor, into) {
		return badCursor()
	}
	return nil
}

func badCursor() error {
	return invalid("cursor", "it is not one that a page of this list had as next_cursor: take that of the page before, or none for the first page")
}

func readCursor(cursor string, into []any) bool {
	if len(cursor) > maxCursor || strings.ContainsAny(cursor, "\r\n") { // line breaks are skipped by the decoder
		return false
	}
	text, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil {
		return false
	}
	var parts []json.RawMessage
	if json.Unmarshal(text, &parts) != nil || len(parts) != len(into)+1 || string(parts[0]) != fmt.Sprint(cursorVersion) {
		return false
	}
	for i, part := range parts[1:] {
		// null would leave any value as it is; text of Postgres has no NUL.
		if string(part) == "null" || json.Unmarshal(part, into[i]) != nil || hasNUL(into[i]) {
			return false
		}
	}
	return true
}

func hasNUL(value any) bool {
	text, is := value.(*string)
	return is && strings.ContainsRune(*text, 0)
}

// pageLimit returns how many items a page has, given what was asked for; 0 stands for nothing.
func pageLimit(limit int) (int, error) {
	switch {
	case limit == 0:
		return DefaultLimit, nil
	case limit < 0 || limit > MaxLimit:
		return 0, invalid("limit", "%d is refused: give 1 to %d", limit, MaxLimit)
	}
	return limit, nil
}
