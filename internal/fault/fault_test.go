package fault_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/internal/fault"
)

const module = "github.com/walhook/walhook"

// build makes a program of the module and returns its path.
func build(t *testing.T, pkg string, flags ...string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), filepath.Base(pkg))
	args := append([]string{"build", "-o", program}, flags...)
	output, err := exec.CommandContext(t.Context(), "go", append(args, pkg)...).CombinedOutput()
	require.NoError(t, err, "%s", output)
	return program
}

// hit runs testdata/hit and returns what it printed and how it ended.
func hit(t *testing.T, program, environ string, points ...string) (string, error) {
	t.Helper()
	c := exec.CommandContext(t.Context(), program, points...)
	c.Env = append(os.Environ(), strings.Fields(environ)...)
	output, err := c.CombinedOutput()
	return string(output), err
}

// constants reads the values of the package's constants of a type from its source, by name.
func constants(t *testing.T, file, kind string) map[string]string {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
	require.NoError(t, err)
	all := map[string]string{}
	ast.Inspect(parsed, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || spec.Type == nil {
			return true
		}
		if name, ok := spec.Type.(*ast.Ident); ok && name.Name == kind {
			require.NotNil(t, spec.Doc, "%s has no comment", spec.Names[0].Name)
			value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			require.NoError(t, err)
			all[spec.Names[0].Name] = value
		}
		return true
	})
	return all
}

// The checker goes by the lists: what they lack is never tried.
func TestListsAreComplete(t *testing.T) {
	t.Parallel()
	var points, mistakes []string
	for _, p := range fault.Points() {
		points = append(points, string(p))
	}
	for _, m := range fault.Mistakes() {
		mistakes = append(mistakes, string(m))
	}
	require.Len(t, slices.Compact(slices.Sorted(slices.Values(points))), len(points), "names are unique")
	require.Len(t, slices.Compact(slices.Sorted(slices.Values(mistakes))), len(mistakes), "names are unique")
	require.ElementsMatch(t, slices.Collect(maps.Values(constants(t, "points.go", "Kill"))), points)
	require.ElementsMatch(t, slices.Collect(maps.Values(constants(t, "mistakes.go", "Mistake"))), mistakes)
}

// A point that nothing calls would be armed in vain, and so would a mistake that nothing makes.
func TestEveryNameIsUsed(t *testing.T) {
	t.Parallel()
	var source strings.Builder
	for _, dir := range []string{"relay", "sql", "cmd"} {
		require.NoError(t, filepath.WalkDir(filepath.Join("..", "..", dir), func(path string, _ os.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			source.Write(text)
			return err
		}))
	}
	for name := range constants(t, "points.go", "Kill") {
		require.Equal(t, 1, strings.Count(source.String(), "fault."+name+")"), "calls of %s", name)
	}
	for name := range constants(t, "mistakes.go", "Mistake") {
		require.Contains(t, source.String(), "fault.Bug(fault."+name+")")
	}
}

// What users get can neither be killed nor made to err: it does not even have the words for it.
func TestReleaseHasNoTrace(t *testing.T) {
	t.Parallel()
	words := []string{"WALHOOK_KILL", "WALHOOK_FREEZE", "WALHOOK_BUG"}
	for _, p := range fault.Points() {
		words = append(words, string(p))
	}
	for _, m := range fault.Mistakes() {
		words = append(words, string(m))
	}
	program := build(t, module+"/cmd/walhook")
	release, err := os.ReadFile(program)
	require.NoError(t, err)
	checked, err := os.ReadFile(build(t, module+"/cmd/walhook", "-tags", "checker"))
	require.NoError(t, err)
	for _, word := range words {
		require.False(t, bytes.Contains(release, []byte(word)), "%s is in the program", word)
		require.True(t, bytes.Contains(checked, []byte(word)), "%s is not in the other: the line above proves nothing", word)
	}
	symbols, err := exec.CommandContext(t.Context(), "go", "tool", "nm", program).Output()
	require.NoError(t, err)
	require.NotContains(t, string(symbols), module+"/internal/fault")
}

func TestWithTheTag(t *testing.T) {
	t.Parallel()
	program := build(t, module+"/internal/fault/testdata/hit", "-tags", "checker")

	t.Run("nothing is armed", func(t *testing.T) {
		output, err := hit(t, program, "", "record.began", "record.began")
		require.NoError(t, err)
		require.Equal(t, "passed record.began\npassed record.began\n", output)
	})
	t.Run("it dies at the hit that was asked for", func(t *testing.T) {
		output, err := hit(t, program, "WALHOOK_KILL=record.began:2", "record.cut", "record.began", "!record.began", "record.began", "record.began")
		require.Equal(t, "passed record.cut\npassed record.began\npassed record.began\n", output)
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
		require.Equal(t, syscall.SIGKILL, exit.Sys().(syscall.WaitStatus).Signal())
	})
	t.Run("it stops at the hit that was asked for, and goes on from there", func(t *testing.T) {
		var output bytes.Buffer
		cmd := exec.CommandContext(t.Context(), program, "record.began", "record.cut")
		cmd.Env, cmd.Stdout = append(os.Environ(), "WALHOOK_FREEZE=record.began:1"), &output
		require.NoError(t, cmd.Start())
		var status syscall.WaitStatus
		_, err := syscall.Wait4(cmd.Process.Pid, &status, syscall.WUNTRACED, nil) // until it stops
		require.NoError(t, err)
		require.True(t, status.Stopped(), "%v", status)
		require.NoError(t, cmd.Process.Signal(syscall.SIGCONT))
		require.NoError(t, cmd.Wait())
		require.Equal(t, "passed record.began\npassed record.cut\n", output.String())
	})
	t.Run("mistakes are made by name, and no variable is left for the configuration", func(t *testing.T) {
		output, err := hit(t, program, "WALHOOK_BUG=zero-flush,retry-new-id WALHOOK_KILL=record.began:1")
		require.NoError(t, err)
		require.Equal(t, "mistake zero-flush\nmistake retry-new-id\n", output)
	})
	for environ, want := range map[string]string{
		"WALHOOK_KILL=record.begun:1":        "there is no such point",
		"WALHOOK_KILL=record.began":          "want name:count",
		"WALHOOK_KILL=record.began:0":        "want name:count",
		"WALHOOK_KILL=record.began:x":        "want name:count",
		"WALHOOK_FREEZE=record.began:x":      "want name:count",
		"WALHOOK_BUG=zero-flush,zero":        `there is no mistake "zero"`,
		"WALHOOK_BUG=zero-flush,,retry-n-id": `there is no mistake ""`,
	} {
		t.Run(environ, func(t *testing.T) {
			output, err := hit(t, program, environ, "record.began")
			require.Error(t, err)
			require.Contains(t, output, want)
			require.NotContains(t, output, "passed")
		})
	}
}

func TestWithoutTheTag(t *testing.T) {
	t.Parallel()
	program := build(t, module+"/internal/fault/testdata/hit")
	output, err := hit(t, program, "WALHOOK_KILL=record.began:1 WALHOOK_BUG=zero-flush", "record.began")
	require.NoError(t, err)
	require.Contains(t, output, "passed record.began")
	require.NotContains(t, output, "mistake")
}
