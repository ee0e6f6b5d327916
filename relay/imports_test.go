package relay_test

import (
	"encoding/json"
	"errors"
	"io"
	osexec "os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// module is the path that all our packages begin with; the tables below leave it out.
const module = "github.com/walhook/walhook"

// allowed is the table of DESIGN.md: what of ours a package may import. A name that ends in "/..." stands for
// everything below it as well, and the longest name that fits decides. Tests may import what their package
// may, and what testAllowed adds.
var allowed = map[string][]string{
	"outbox/...": {},
	"config":     {},
	"sql/...":    {"internal/fault"},

	"internal/fault": {},

	"relay/delivery":        {"outbox"},
	"relay/...":             {"outbox", "relay/delivery", "internal/fault"}, // never each other
	"relay/queue/jetstream": {"outbox", "relay/delivery", "relay/queue", "internal/fault"},
	"relay/admin":           {"outbox", "relay/delivery"},
	"relay/api":             {"outbox", "relay/admin"},
	"relay/ui":              {"outbox", "relay/admin"},
	"relay":                 {"outbox", "relay/...", "internal/fault"},

	"cmd/localpg":     {},
	"cmd/walhook/...": {"config", "sql", "relay", "relay/...", "outbox", "outbox/...", "cmd/localpg", "cmd/walhook/...", "internal/fault"},

	"test/harness/...": {"sql", "cmd/localpg", "outbox", "outbox/...", "test/harness/..."},
	"test/...":         {"config", "sql", "outbox", "outbox/...", "test/harness", "test/..."}, // what users may import
	// What judges the relay shares nothing with it.
	"test/checker/history": {},
	"test/checker/truth":   {"test/checker/history"},
	"test/checker/judge":   {"test/checker/history", "test/checker/truth"},
	"test/checker":         {"config", "sql", "outbox", "outbox/...", "cmd/localpg", "internal/fault", "test/..."},
}

// testAllowed is what tests may import besides: the harness, and the server that it hands out.
var testAllowed = map[string][]string{
	"...":                {"test/harness", "cmd/localpg"},
	"relay/...":          {"sql"},
	"test/checker/truth": {"sql"},
}

// confined names third parties that only some packages may import, in tests as well.
var confined = map[string][]string{
	"github.com/jackc/pglogrepl":                   {"relay/stream"},
	"github.com/hashicorp/go-retryablehttp":        {"relay/webhook"},
	"github.com/pressly/goose/v3/...":              {"sql"},
	"github.com/goccy/go-yaml/...":                 {"config"},
	"github.com/caarlos0/env/v11/...":              {"config"},
	"github.com/spf13/cobra/...":                   {"cmd/walhook/..."},
	"github.com/prometheus/client_golang/...":      {"relay/ops", "relay", "cmd/walhook/...", "test/..."},
	"github.com/tink-crypto/tink-go/v2/...":        {"relay/secret"},
	"go.opentelemetry.io/otel/...":                 {"cmd/walhook/...", "relay/webhook"},
	"github.com/coreos/go-systemd/v22/...":         {"cmd/walhook/..."},
	"github.com/danielgtaylor/huma/v2/...":         {"relay/api"},
	"github.com/santhosh-tekuri/jsonschema/v6/...": {"relay/admin"},
	"github.com/chromedp/...":                      {"test/..."},
	"github.com/stretchr/testify/...":              {"test/..."},
	"go.uber.org/goleak":                           {"test/..."},
}

// onlyThirdParties are all that applications inherit from the public package.
var onlyThirdParties = map[string][]string{
	"outbox":          {"github.com/jackc/pgx/v5/...", "github.com/google/uuid"},
	"outbox/receiver": {"github.com/jackc/pgx/v5/..."},
}

// pkg is what go list tells of a package.
type pkg struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

// listed are the packages of the module.
func listed(t *testing.T) []pkg {
	t.Helper()
	out, err := osexec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", module+"/...").Output()
	require.NoError(t, err)
	var all []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all
		}
		require.NoError(t, err)
		all = append(all, p)
	}
}

// ours cuts the module's path off and reports whether the package is the module's.
func ours(path string) (string, bool) {
	if path == module {
		return "", true
	}
	return strings.CutPrefix(path, module+"/")
}

// fits reports whether a package is one that a name stands for.
func fits(name, path string) bool {
	below, all := strings.CutSuffix(name, "...")
	below = strings.TrimSuffix(below, "/")
	return path == below || all && (below == "" || strings.HasPrefix(path, below+"/"))
}

func fitsAny(names []string, path string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return fits(name, path) })
}

// importRule is the entry of the name that fits best, and whether there is one: the package's own, or else the
// longest.
func importRule(table map[string][]string, path string) (entry []string, found bool) {
	if entry, found := table[path]; found {
		return entry, true
	}
	longest := ""
	for name, imports := range table {
		if fits(name, path) && len(name) > len(longest) {
			entry, found, longest = imports, true, name
		}
	}
	return entry, found
}

// wrongImports says what is wrong with what a package imports.
func wrongImports(path string, imports []string, test bool) (wrong []string) {
	may, known := importRule(allowed, path)
	if !known {
		return []string{path + " has no place in the table of imports: give it one, here and in DESIGN.md"}
	}
	only, limited := importRule(onlyThirdParties, path)
	for _, i := range imports {
		if name, is := ours(i); is {
			fine := name == path || fitsAny(may, name)
			if test {
				for tests, also := range testAllowed {
					fine = fine || fits(tests, path) && fitsAny(also, name)
				}
			}
			if !fine {
				wrong = append(wrong, path+" must not import "+name)
			}
			continue
		}
		who, isConfined := importRule(confined, i)
		tool := test && (fits("github.com/stretchr/testify/...", i) || fits("go.uber.org/goleak", i))
		if isConfined && !tool && !fitsAny(who, path) {
			wrong = append(wrong, path+" must not import "+i+", which only "+strings.Join(who, ", ")+" may")
		}
		if limited && !test && strings.Contains(strings.Split(i, "/")[0], ".") && !fitsAny(only, i) {
			wrong = append(wrong, path+" must not import "+i+": applications would inherit it")
		}
	}
	return wrong
}

// Dependencies point one way: leaves know nothing, siblings don't know each other, one package composes them.
func TestImportDirections(t *testing.T) {
	packages := listed(t)
	seen := map[string]bool{}
	for _, p := range packages {
		path, is := ours(p.ImportPath)
		require.True(t, is, p.ImportPath)
		seen[path] = true
		for _, problem := range wrongImports(path, p.Imports, false) {
			t.Error(problem)
		}
		for _, problem := range wrongImports(path, append(p.TestImports, p.XTestImports...), true) {
			t.Error("tests: " + problem)
		}
	}
	for _, path := range []string{"outbox", "config", "sql", "internal/fault", "relay", "relay/delivery", "relay/stream", "relay/route", "relay/dispatch",
		"relay/webhook", "relay/record", "relay/queue", "relay/ops", "cmd/walhook", "test/harness"} {
		require.True(t, seen[path], "go list knows no package %s", path)
	}
}

// The rules themselves: each line would be a mistake.
func TestImportDirectionsThatAreWrong(t *testing.T) {
	for _, c := range []struct {
		from, to string
		test     bool
	}{
		{"relay/stream", module + "/relay/record", false},
		{"relay/record", module + "/relay/stream", true},
		{"relay/delivery", module + "/relay/route", false},
		{"relay/ops", module + "/relay", false},
		{"relay", module + "/config", false},
		{"relay", module + "/sql", false},
		{"relay", module + "/test/harness", false},
		{"outbox", module + "/relay/delivery", false},
		{"outbox", "github.com/rs/zerolog", false},
		{"config", module + "/relay", false},
		{"sql", module + "/outbox", false},
		{"relay/route", module + "/cmd/localpg", false},
		{"test/acceptance", module + "/relay", true},
		{"relay/record", "github.com/jackc/pglogrepl", false},
		{"relay/record", "github.com/jackc/pglogrepl", true},
		{"relay", "github.com/hashicorp/go-retryablehttp", false},
		{"cmd/walhook", "github.com/goccy/go-yaml", false},
		{"relay/dispatch", "go.opentelemetry.io/otel/trace", false},
		{"relay/webhook", "github.com/coreos/go-systemd/v22/daemon", false},
		{"relay/dispatch", "github.com/stretchr/testify/require", false},
		{"internal/fault", module + "/relay/delivery", false},
		{"outbox", module + "/internal/fault", false},
		{"elsewhere", "fmt", false},
	} {
		require.Len(t, wrongImports(c.from, []string{c.to}, c.test), 1, "%s imports %s", c.from, c.to)
	}
	require.Empty(t, wrongImports("relay/queue", []string{"context", module + "/relay/delivery", "github.com/jackc/pgx/v5"}, false))
	require.Empty(t, wrongImports("relay/queue", []string{module + "/test/harness", module + "/relay/queue", "github.com/stretchr/testify/require"}, true))
}
