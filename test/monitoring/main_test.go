// Package monitoring_test holds config/prometheus and config/grafana to what a running relay exports: rules fire when
// they should, and every query has an answer.
//
// It needs promtool and prometheus, which Debian's package prometheus has; without them the tests that use them are
// skipped, or fail where WALHOOK_TEST_PROMTOOL is "required".
package monitoring_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// soon bounds what should happen at once; it is generous because the machine may be busy.
const soon = 30 * time.Second

const (
	rulesFile     = "../../config/prometheus/alerts.yaml"
	rulesTestFile = "../../config/prometheus/alerts_test.yaml"
	dashboardFile = "../../config/grafana/walhook.json"
)

// tool returns the path of a program of the package prometheus.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil && os.Getenv("WALHOOK_TEST_PROMTOOL") != "required" {
		t.Skipf("not tried: %v: install Debian's package prometheus", err)
	}
	require.NoError(t, err, "WALHOOK_TEST_PROMTOOL is \"required\"")
	return path
}

// promtool must succeed.
func promtool(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), tool(t, "promtool"), args...).CombinedOutput()
	require.NoError(t, err, "promtool %s\n%s", strings.Join(args, " "), out)
	return string(out)
}

// text reads a file.
func text(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(name)
	require.NoError(t, err)
	return string(content)
}

var metricName = regexp.MustCompile(`\b(walhook|process)_[a-z0-9_]+`)

// namesIn are the metrics that a text names, each once.
func namesIn(text string) map[string]bool {
	names := map[string]bool{}
	for _, name := range metricName.FindAllString(text, -1) {
		names[name] = true
	}
	return names
}

// get reads a page, which must be there.
func get(t *testing.T, url string) string {
	t.Helper()
	body, err := fetch(t, url)
	require.NoError(t, err)
	return body
}

func fetch(t *testing.T, url string) (string, error) {
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", url, response.Status, body)
	}
	return string(body), err
}

// write makes a file in a folder of the test's own.
func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
	return path
}
