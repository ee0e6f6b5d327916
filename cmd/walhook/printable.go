package main

import (
	"strconv"
	"strings"
	"unicode"
)

// printable writes foreign text so that a terminal cannot take it for commands: control characters except
// line breaks and tabs, and bytes that are not UTF-8, become escapes. Spaces and letters stay as they are.
func printable(s string) string {
	if !strings.ContainsFunc(s, unprintable) {
		return s
	}
	var out strings.Builder
	for _, r := range s {
		if !unprintable(r) {
			out.WriteRune(r)
			continue
		}
		quoted := strconv.QuoteRuneToASCII(r)
		out.WriteString(quoted[1 : len(quoted)-1])
	}
	return out.String()
}

// unprintable includes the format characters that reorder or hide text (Unicode's Cf), as U+202E.
func unprintable(r rune) bool {
	return r != '\n' && r != '\t' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r)) || r == unicode.ReplacementChar
}
