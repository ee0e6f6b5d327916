package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// built holds the programs that this test binary has built, until Main removes them.
var built buildCache

type buildCache struct {
	mu    sync.Mutex // held while building: the machine is busy enough with one
	dir   string
	paths map[string]string // by package
}

// BuildWalhook builds cmd/walhook, once a test binary and with -race if that has it, and returns the
// program's path. Main removes it.
func BuildWalhook(t testing.TB) string {
	t.Helper()
	return Build(t, "github.com/walhook/walhook/cmd/walhook")
}

// Build is BuildWalhook for any main package of the module, given by its import path.
func Build(t testing.TB, pkg string) string {
	t.Helper()
	program, err := built.program(pkg)
	require.NoError(t, err)
	return program
}

func (b *buildCache) program(pkg string) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if program, ok := b.paths[pkg]; ok {
		return program, nil
	}
	if b.dir == "" {
		dir, err := os.MkdirTemp("", "walhook-build-")
		if err != nil {
			return "", fmt.Errorf("build %s: %w", pkg, err)
		}
		b.dir, b.paths = dir, make(map[string]string)
	}
	program := filepath.Join(b.dir, path.Base(pkg))
	args := []string{"build", "-o", program}
	if raceEnabled {
		args = append(args, "-race")
	}
	if output, err := exec.Command("go", append(args, pkg)...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, output)
	}
	b.paths[pkg] = program
	return program, nil
}

func (b *buildCache) remove() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.dir == "" {
		return nil
	}
	return os.RemoveAll(b.dir)
}
