package ui

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"
)

// unixLines turns the line ends that browsers send into those that people count.
func unixLines(s string) string { return strings.ReplaceAll(s, "\r\n", "\n") }

// excerpt is the beginning of a value that a message names.
func excerpt(s string) string {
	const most = 60
	if runes := []rune(s); len(runes) > most {
		s = string(runes[:most]) + "…"
	}
	return s
}

// eventNames reads names of event types, one a line or between commas. A comma may be part of a name: lines that are one of
// the names known already stay whole.
func eventNames(typed string, known []string) []string {
	names := []string{}
	for line := range strings.Lines(unixLines(typed)) {
		line = strings.TrimSpace(line)
		parts := []string{line}
		if !slices.Contains(known, line) {
			parts = strings.Split(line, ",")
		}
		for _, name := range parts {
			if name = strings.TrimSpace(name); name != "" {
				names = append(names, name)
			}
		}
	}
	return names
}

// headerLines reads "Name: value" lines.
func headerLines(typed string) (map[string]string, error) {
	headers, seen := map[string]string{}, map[string]bool{}
	number := 0
	for line := range strings.Lines(unixLines(typed)) {
		number++
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		name, value, found := strings.Cut(line, ":")
		name = strings.TrimSpace(name)
		if !found || name == "" {
			return nil, errors.New(text("webhook.header_wrong", number)) // not the line: it may hold a credential
		}
		if seen[strings.ToLower(name)] {
			return nil, errors.New(text("webhook.header_twice", excerpt(name)))
		}
		seen[strings.ToLower(name)], headers[name] = true, strings.TrimSpace(value)
	}
	return headers, nil
}

// headerText is the reverse of headerLines, in the order of names.
func headerText(headers map[string]string) string {
	lines := make([]string, 0, len(headers))
	for name, value := range headers {
		lines = append(lines, name+": "+value)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// checkJSON says where a text stops being one JSON value.
func checkJSON(s string) error {
	var value json.RawMessage
	err := json.Unmarshal([]byte(s), &value)
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		before := s[:min(int(syntax.Offset), len(s))]
		return errors.New(text("webhook.json_wrong", 1+strings.Count(before, "\n"), syntax))
	}
	return err
}

// filterObject reads filters; nothing typed is the object that lets everything through.
func filterObject(typed string) (json.RawMessage, error) {
	typed = strings.TrimSpace(typed)
	if typed == "" {
		return json.RawMessage("{}"), nil
	}
	if err := checkJSON(typed); err != nil {
		return nil, err
	}
	if typed[0] != '{' {
		return nil, errors.New(text("webhook.filters_no_object"))
	}
	return json.RawMessage(typed), nil
}

// filterText is what people edit. Numbers stay as they are written.
func filterText(filters json.RawMessage) string {
	if len(filters) == 0 || string(filters) == "{}" {
		return ""
	}
	var out bytes.Buffer
	if deep(string(filters)) || json.Indent(&out, filters, "", "  ") != nil {
		return string(filters)
	}
	return out.String()
}

// momentOf reads what an input of type datetime-local gives, as UTC. Empty is the zero time.
func momentOf(typed string) (time.Time, error) {
	typed = strings.TrimSpace(typed)
	if typed == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{"2006-01-02T15:04", "2006-01-02T15:04:05"} {
		at, err := time.ParseInLocation(layout, strings.TrimSuffix(typed, "Z"), time.UTC)
		if err == nil {
			return at, nil
		}
	}
	return time.Time{}, errors.New(text("webhook.moment_wrong", excerpt(typed)))
}

// eventText is the reverse of eventNames.
func eventText(names []string) string { return strings.Join(names, "\n") }
