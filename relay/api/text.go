package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// How deep JSON may be nested. Postgres takes a few thousand levels, depending on its settings.
const (
	maxDepth      = 64
	maxEventDepth = 1000
)

// checkText holds a body to what is JSON, and to what Postgres stores of it. Nothing is decoded before that, so that
// everything that follows may rely on it.
func checkText(text []byte, depth int) *problem {
	switch {
	case len(trim(text)) == 0:
		return wrong(http.StatusBadRequest, "body", "is empty, it must be a JSON object")
	case !utf8.Valid(text):
		return wrong(http.StatusBadRequest, "body", "is not valid UTF-8 at byte %d", invalidUTF8(text))
	}
	if !json.Valid(text) {
		return notJSON(text)
	}
	return checkValues(text, depth)
}

// notJSON says where the text stops being JSON.
func notJSON(text []byte) *problem {
	var nothing any
	err := json.Unmarshal(text, &nothing) // which checks before it decodes
	offset := int64(0)
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		offset = syntax.Offset
	}
	return wrong(http.StatusBadRequest, "body", "is not JSON at byte %d: %v", offset, err)
}

func invalidUTF8(text []byte) int {
	at := 0
	for {
		c, size := utf8.DecodeRune(text[at:])
		if c == utf8.RuneError && size <= 1 {
			return at
		}
		at += size
	}
}

// checkValues looks for what is JSON and yet cannot be stored.
func checkValues(text []byte, depth int) *problem {
	level := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '{', '[':
			if level++; level > depth {
				return wrong(http.StatusUnprocessableEntity, "body", "is nested deeper than %d levels at byte %d", depth, i)
			}
		case '}', ']':
			level--
		case '"':
			end := stringEnd(text, i)
			if err := checkEscapes(text[i:end]); err != nil {
				return wrong(http.StatusUnprocessableEntity, "body", "has a string at byte %d with %v", i, err)
			}
			i = end - 1
		}
	}
	return nil
}

var (
	errNUL       = errors.New(`\u0000, which Postgres cannot store: remove it`)
	errSurrogate = errors.New(`half of a surrogate pair: write both halves or \ufffd`)
)

// checkEscapes looks at the escapes of one string.
func checkEscapes(text []byte) error {
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			continue
		}
		if i++; text[i] != 'u' {
			continue
		}
		switch c := hex(text[i+1:]); {
		case c == 0:
			return errNUL
		case utf16.IsSurrogate(c):
			if len(text) < i+11 || text[i+5] != '\\' || text[i+6] != 'u' || utf16.DecodeRune(c, hex(text[i+7:])) == utf8.RuneError {
				return errSurrogate
			}
			i += 6
		}
	}
	return nil
}

func hex(digits []byte) rune {
	c, _ := strconv.ParseUint(string(digits[:4]), 16, 16) // they are digits: the text is JSON
	return rune(c)
}

// stringEnd returns where the string that begins at i ends, behind its quote.
func stringEnd(text []byte, i int) int {
	for i++; text[i] != '"'; i++ {
		if text[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// valueEnd returns where the value that begins at i ends.
func valueEnd(text []byte, i int) int {
	if text[i] == '"' {
		return stringEnd(text, i)
	}
	if text[i] != '{' && text[i] != '[' {
		for i < len(text) && strings.IndexByte(",]} \t\r\n", text[i]) < 0 {
			i++
		}
		return i
	}
	for level := 0; ; {
		switch text[i] {
		case '"':
			i = stringEnd(text, i)
			continue
		case '{', '[':
			level++
		case '}', ']':
			if level--; level == 0 {
				return i + 1
			}
		}
		i++
	}
}

// member is one of an object, with its value as it was written. An array's have no names.
type member struct {
	name  string
	value json.RawMessage
}

// trim cuts white space off JSON text.
func trim(text []byte) []byte { return bytes.Trim(text, " \t\r\n") }

// members takes an object or an array apart without copying; text has been checked.
func members(text []byte) []member {
	var all []member
	object := text[0] == '{'
	for i := skipSpace(text, 1); text[i] != '}' && text[i] != ']'; {
		var m member
		if object {
			end := stringEnd(text, i)
			_ = json.Unmarshal(text[i:end], &m.name) // it is a string
			i = skipSpace(text, end)
			i = skipSpace(text, i+1)
		}
		end := valueEnd(text, i)
		m.value = json.RawMessage(text[i:end:end])
		all = append(all, m)
		if i = skipSpace(text, end); text[i] == ',' {
			i = skipSpace(text, i+1)
		}
	}
	return all
}

func skipSpace(text []byte, i int) int {
	for text[i] == ' ' || text[i] == '\t' || text[i] == '\r' || text[i] == '\n' {
		i++
	}
	return i
}

// checkUnique refuses a name that stands twice in an object, at any depth: decoders differ in which one they take.
func checkUnique(text []byte, location string) *problem {
	if text[0] != '{' && text[0] != '[' {
		return nil
	}
	seen := map[string]bool{}
	for i, m := range members(text) {
		at := location + "." + m.name
		if text[0] == '[' {
			at = fmt.Sprintf("%s[%d]", location, i)
		}
		at = short(at) // a name may be long, and must not be copied for all that it holds
		if text[0] == '{' && seen[m.name] {
			return wrong(http.StatusUnprocessableEntity, at, "is there twice: remove one")
		}
		seen[m.name] = true
		if p := checkUnique(m.value, at); p != nil {
			return p
		}
	}
	return nil
}
