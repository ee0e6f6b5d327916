package admin

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

const (
	maxFindings    = 5    // shown
	sortedFindings = 1000 // that are put into an order before
	maxFinding     = 300  // bytes
)

// finding is something that a schema finds wrong with a value.
type finding struct {
	path string // JSON pointer; empty: the whole value
	what string
}

// findingsOf words what a schema finds wrong: where, and what is wanted there, but never what is there instead.
func findingsOf(err error) []string {
	var invalid *jsonschema.ValidationError
	if !errors.As(err, &invalid) {
		return nil
	}
	var all []finding
	collectFindings(invalid, &all)
	slices.SortStableFunc(all, func(a, b finding) int { return cmp.Or(cmp.Compare(a.path, b.path), cmp.Compare(a.what, b.what)) })
	all = slices.Compact(all)
	var texts []string
	for i, f := range all {
		if i == maxFindings {
			texts = append(texts, "and more")
			break
		}
		text := f.what
		if f.path != "" {
			text = "at " + f.path + ": " + f.what
		}
		texts = append(texts, shortened(text, maxFinding))
	}
	return texts
}

// collectFindings takes the causes that have none themselves: what stands above only sums up.
func collectFindings(e *jsonschema.ValidationError, into *[]finding) {
	if len(*into) >= sortedFindings {
		return
	}
	for _, cause := range e.Causes {
		collectFindings(cause, into)
	}
	if len(e.Causes) > 0 || e.ErrorKind == nil {
		return
	}
	var path strings.Builder
	for _, step := range e.InstanceLocation {
		path.WriteString("/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(step))
		if path.Len() > maxFinding {
			break
		}
	}
	*into = append(*into, finding{path.String(), wordsOf(e.ErrorKind)})
}

// wordsOf says what is wanted. The library's words are used where they do not show the value, which may be long or secret.
func wordsOf(k jsonschema.ErrorKind) string {
	switch k := k.(type) {
	case *kind.Format:
		return "is not valid " + k.Want
	case *kind.Pattern:
		return fmt.Sprintf("does not match the pattern %.100q", k.Want)
	case *kind.Minimum, *kind.ExclusiveMinimum:
		return "is too small"
	case *kind.Maximum, *kind.ExclusiveMaximum:
		return "is too large"
	case *kind.MultipleOf:
		return "is not a multiple of what it should be"
	case *kind.AdditionalProperties:
		slices.Sort(k.Properties)
		if len(k.Properties) > maxFindings {
			return fmt.Sprintf("has %d properties that are not allowed, %.60q for one", len(k.Properties), k.Properties[0])
		}
	case *kind.FalseSchema:
		return "is not allowed"
	case *kind.Schema:
		return "is not as the schema says"
	}
	return k.LocalizedString(message.NewPrinter(language.English))
}

// schemaError words what is wrong with a schema itself, naming the keyword.
func schemaError(err error) error {
	var invalid *jsonschema.SchemaValidationError
	if errors.As(err, &invalid) {
		err = invalid.Err // which it does not unwrap
	}
	if findings := findingsOf(err); len(findings) > 0 {
		return errors.New("it is no valid JSON Schema: " + strings.Join(findings, "; "))
	}
	var (
		load    *jsonschema.LoadURLError
		pointer *jsonschema.JSONPointerNotFoundError
		pattern *jsonschema.InvalidRegexError
	)
	switch {
	case errors.As(err, &load):
		return fmt.Errorf("it refers to what it has not: %w", load.Err)
	case errors.As(err, &pointer):
		return fmt.Errorf("a $ref refers to %.200s, which is not there", local(pointer.URL))
	case errors.As(err, &pattern):
		return fmt.Errorf("the pattern at %.200s is no regular expression of RE2: %w", local(pattern.URL), pattern.Err)
	}
	return errors.New(shortened(local(err.Error()), maxFinding))
}

// local leaves the schema's made-up address out.
func local(text string) string { return strings.ReplaceAll(text, schemaURL, "") }
