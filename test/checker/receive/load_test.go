package receive_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/checker/receive"
)

// logOf is a log with the given content.
func logOf(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "receipts")
	require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
	return path
}

func TestLoad(t *testing.T) {
	t.Parallel()
	receipts, err := receive.Load(logOf(t, `{"seq":2,"body":"Mg==","behaviour":"ok"}
{"seq":1,"body":"MQ==","behaviour":"hang"}
{"answered":2,"answered_at":"2026-01-02T03:04:05Z","status":200}
{"seq":3,"body":"Mw=`))
	require.NoError(t, err)
	require.Len(t, receipts, 2, "the last line is torn")
	require.EqualValues(t, 1, receipts[0].Seq)
	require.Equal(t, "1", string(receipts[0].Body))
	require.Zero(t, receipts[0].Status)
	require.Zero(t, receipts[0].AnsweredAt)
	require.EqualValues(t, 2, receipts[1].Seq)
	require.Equal(t, "2", string(receipts[1].Body))
	require.Equal(t, 200, receipts[1].Status)
	require.Equal(t, 2026, receipts[1].AnsweredAt.Year())

	receipts, err = receive.Load(logOf(t, ""))
	require.NoError(t, err)
	require.Empty(t, receipts)
}

func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ content, complaint string }{
		"an answer to nothing": {`{"answered":7}`, "request 7 was answered and did not arrive"},
		"something else":       {"hello\n", "invalid character"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := logOf(t, test.content)
			_, err := receive.Load(path)
			require.ErrorContains(t, err, test.complaint)
			require.ErrorContains(t, err, path)
		})
	}
	_, err := receive.Load(filepath.Join(t.TempDir(), "nothing"))
	require.ErrorIs(t, err, os.ErrNotExist)
}
