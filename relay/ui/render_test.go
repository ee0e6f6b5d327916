package ui

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"text/template/parse"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// TestTextsAreThere looks for keys that templates and code use and nobody has written.
func TestTextsAreThere(t *testing.T) {
	t.Parallel()
	used := map[string]bool{}
	for name, page := range parsePages("") {
		for _, block := range page.Templates() {
			if block.Tree != nil {
				textKeys(block.Tree.Root, used)
			}
		}
		require.NotNil(t, page.Lookup("content"), name)
	}
	for key := range used {
		require.Contains(t, texts, key)
	}
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	mentioned := map[string]bool{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		require.NoError(t, err)
		ast.Inspect(parsed, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) == 0 {
				return true
			}
			if f, ok := call.Fun.(*ast.Ident); !ok || f.Name != "text" {
				return true
			}
			if literal, ok := call.Args[0].(*ast.BasicLit); ok {
				key, err := strconv.Unquote(literal.Value)
				require.NoError(t, err)
				require.Contains(t, texts, key, file)
				mentioned[key] = true
			}
			return true
		})
	}
	require.Greater(t, len(mentioned), 20)
}

// textKeys collects the keys of {{text "key"}}, wherever in a template they are.
func textKeys(node parse.Node, keys map[string]bool) {
	switch n := node.(type) {
	case *parse.ListNode:
		if n == nil {
			return
		}
		for _, child := range n.Nodes {
			textKeys(child, keys)
		}
	case *parse.ActionNode:
		textKeys(n.Pipe, keys)
	case *parse.TemplateNode:
		textKeys(n.Pipe, keys)
	case *parse.IfNode:
		textKeysOfBranch(&n.BranchNode, keys)
	case *parse.RangeNode:
		textKeysOfBranch(&n.BranchNode, keys)
	case *parse.WithNode:
		textKeysOfBranch(&n.BranchNode, keys)
	case *parse.PipeNode:
		if n == nil {
			return
		}
		for _, command := range n.Cmds {
			textKeys(command, keys)
		}
	case *parse.CommandNode:
		if f, ok := n.Args[0].(*parse.IdentifierNode); ok && f.Ident == "text" && len(n.Args) > 1 {
			if key, ok := n.Args[1].(*parse.StringNode); ok {
				keys[key.Text] = true
			}
		}
		for _, arg := range n.Args {
			textKeys(arg, keys)
		}
	}
}

func textKeysOfBranch(n *parse.BranchNode, keys map[string]bool) {
	textKeys(n.Pipe, keys)
	textKeys(n.List, keys)
	textKeys(n.ElseList, keys)
}

// TestPagesNeedNothingThatThePolicyForbids finds inline scripts and styles, and what is loaded from elsewhere.
func TestPagesNeedNothingThatThePolicyForbids(t *testing.T) {
	t.Parallel()
	forbidden := regexp.MustCompile(`(?i)\sstyle=|<style|\son[a-z]+=|hx-on|javascript:|js:|src="http|href="http|hx-trigger="[^"]*\[|<script[^>]*>[^<]`)
	for _, dir := range []string{"templates", "static"} {
		require.NoError(t, filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(file, ".html") {
				return err
			}
			b, err := os.ReadFile(file)
			require.Empty(t, forbidden.FindString(string(b)), file)
			return err
		}))
	}
}

func TestStaticFilesMayBeKeptForEver(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for name, kind := range map[string]string{
		"app.css": "text/css", "app.js": "text/javascript", "theme.js": "text/javascript", "charts.js": "text/javascript", "htmx.min.js": "text/javascript",
		"hx-sse.min.js": "text/javascript", "uPlot.iife.min.js": "text/javascript", "uPlot.min.css": "text/css", "icon.svg": "image/svg+xml", "THIRD_PARTY.md": "text/plain",
	} {
		w := s.ask("", "GET", staticPath(name), nil)
		require.Equal(t, 200, w.Code, name)
		require.Contains(t, w.Header().Get("Content-Type"), kind, name)
		require.Contains(t, w.Header().Get("Cache-Control"), "immutable", name)
		require.NotEmpty(t, w.Body.String(), name)
		requireHeaders(t, w, name)
	}
	require.Equal(t, 404, s.ask("", "GET", "/static/"+strings.Repeat("0", 16)+"/app.css", nil).Code, "of another version")
}

func TestFunctions(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for want, got := range map[string]string{
		"12.3 MB": sizeOf(12_345_678), "999 B": sizeOf(999), "1.0 kB": sizeOf(1000), "1.0 MB": sizeOf(999_999), "-5.0 kB": sizeOf(-5000), "0 B": sizeOf(int64(0)),
		"1,234,567": number(1234567), "-1,000": number(-1000), "200": number(uint8(200)), "0.25": number(0.25), "12": number(new(12)),
		"99.9 %": percent(0.99999), "100 %": percent(1.0), "12.5 %": percent(new(0.125)), "–": percent((*float64)(nil)),
		"1.5 ms": milliseconds(1.5), "1,234 ms": milliseconds(1234.4), "12.3 s": milliseconds(12345),
		"3.2 s": duration(3.21), "59 s": duration(59.9), "5 min": duration(301), "3 h 20 min": duration(12_000), "3 h": duration(3 * 3600), "4 days": duration(4 * 86400),
		"just now": distance(20 * time.Second), "3 min ago": distance(3*time.Minute + 59*time.Second), "in 2 h": distance(-2 * time.Hour), "in a moment": distance(-time.Second),
		"3 days ago":          distance(80 * time.Hour),
		"0190a1b2":            short(uuid.MustParse("0190a1b2-0000-7000-8000-000000000000")),
		"{\n  \"a\": 1.10\n}": pretty(`{"a":1.10}`), "not { json": pretty("not { json"), "[]": pretty(json.RawMessage("[]")),
		"/webhooks/a%2Fb%3F/edit": join("/webhooks", []any{"a/b?", "edit"}),
		"2026-03-01 12:00:00 UTC": stamp(now.In(time.FixedZone("x", 3600))),
		`<time datetime="2026-03-01T11:57:00Z" title="2026-03-01 11:57:00 UTC" data-ago>3 min ago</time>`: string(ago(new(now.Add(-3*time.Minute)), now)),
	} {
		require.Equal(t, want, got)
	}
	require.Equal(t, "–", string(ago((*time.Time)(nil), now)))
	require.Equal(t, "–", string(ago(time.Time{}, now)))
}
