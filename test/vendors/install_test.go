package vendors_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// manifests say which packages npm installs.
var manifests = []string{"package.json", "package-lock.json", ".npmrc"}

const oldestNode = 20

// installed returns the directory of the vendors' packages, node_modules. Where they cannot be had, the test is
// skipped, or fails if they are required.
func installed(t *testing.T) string {
	t.Helper()
	required := os.Getenv("WALHOOK_TEST_VENDORS") == "required"
	dir, err := install(t.Context())
	if err != nil && !required {
		t.Skipf("not tried: %s: %v", strings.Join(packages(), ", "), err)
	}
	require.NoError(t, err, "WALHOOK_TEST_VENDORS is \"required\"")
	return dir
}

// install has npm install into the user's cache, unless another run has: then neither npm nor a network is needed.
func install(ctx context.Context) (string, error) {
	if err := haveNode(ctx); err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("%w: set HOME or XDG_CACHE_HOME", err)
	}
	name, err := contentName()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, name)
	modules := filepath.Join(dir, "node_modules")
	if _, err := os.Stat(modules); err == nil {
		return modules, nil
	}
	return modules, installInto(ctx, dir)
}

// Where packages come from is no business of the repository: npm finds them by name and checks their integrity.
func TestLockFileNamesNoRegistry(t *testing.T) {
	t.Parallel()
	lock, err := os.ReadFile("package-lock.json")
	require.NoError(t, err)
	require.Contains(t, string(lock), `"integrity"`)
	require.NotContains(t, string(lock), `"resolved"`)
}

// haveNode wants a Node that the packages run on.
func haveNode(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "node", "--version").Output()
	if err != nil {
		return fmt.Errorf("node --version: %w: install Node %d or later with npm", err, oldestNode)
	}
	version := strings.TrimSpace(string(out))
	major, _, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	if number, err := strconv.Atoi(major); err != nil || number < oldestNode {
		return fmt.Errorf("node is %s: install Node %d or later", version, oldestNode)
	}
	return nil
}

// contentName is a directory's name that changes with the manifests.
func contentName() (string, error) {
	hash := sha256.New()
	for _, name := range manifests {
		content, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		_, _ = hash.Write(append(content, 0)) // a hash never fails
	}
	return "walhook-vendors-" + hex.EncodeToString(hash.Sum(nil)[:8]), nil
}

// installInto makes dir, which appears complete or not at all.
func installInto(ctx context.Context, dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	unfinished, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+"-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(unfinished) }() // it is elsewhere when all went well
	if err := copyInto(unfinished, manifests...); err != nil {
		return err
	}
	if err := npmCI(ctx, unfinished); err != nil {
		return err
	}
	if err := os.Rename(unfinished, dir); err != nil && !errors.Is(err, os.ErrExist) { // another run was faster
		return err
	}
	return nil
}

func npmCI(ctx context.Context, dir string) error {
	const within = 3 * time.Minute
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("not done after %s", within))
	defer cancel()
	npm := exec.CommandContext(ctx, "npm", "ci")
	npm.Dir = dir
	npm.WaitDelay = 5 * time.Second
	if out, err := npm.CombinedOutput(); err != nil {
		return fmt.Errorf("npm ci: %w\n%s", errors.Join(err, context.Cause(ctx)), bytes.TrimSpace(out))
	}
	return nil
}

func copyInto(dir string, names ...string) error {
	for _, name := range names {
		content, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}
