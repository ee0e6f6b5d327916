package ui

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

// What pages show of the texts of others, in bytes: all of an event, less where there are many.
const (
	shownWhole = 1 << 20
	shownOne   = 32 << 10
	shownStart = 160
)

// shown is a text of somebody else's as a page shows it.
type shown struct {
	Text  string
	Cut   bool // there is more
	Bytes int  // of all
}

// show indents JSON and cuts what is longer than most bytes. What would grow out of bounds by it is not indented.
func show(text string, most int) shown {
	s := shown{Text: text, Bytes: len(text)}
	if len(text) <= 4*most && !deep(text) {
		var indented bytes.Buffer
		if json.Indent(&indented, []byte(text), "", "  ") == nil {
			s.Text = indented.String()
		}
	}
	if len(s.Text) > most {
		s.Text, s.Cut = start(s.Text, most), true
	}
	return s
}

// start returns at most so many bytes from the beginning, and no half of a character.
func start(text string, most int) string {
	if len(text) <= most {
		return text
	}
	for most > 0 && !utf8.RuneStart(text[most]) {
		most--
	}
	return text[:most]
}

// summary is the beginning of a text in one line.
func summary(text string) string {
	if len(text) <= shownStart {
		return text
	}
	return start(text, shownStart) + "…"
}

// deep reports JSON that is nested so deeply that its indentation would be most of it.
func deep(text string) bool {
	const most = 40
	level, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if level++; level > most {
				return true
			}
		case c == '}' || c == ']':
			level--
		}
	}
	return false
}
