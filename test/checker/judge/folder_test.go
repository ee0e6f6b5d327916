package judge_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/checker/history"
	"github.com/walhook/walhook/test/checker/judge"
)

func TestSaveAndLoad(t *testing.T) {
	t.Parallel()
	s, a, b := delivered()
	s.unsubscribe(2000, a)
	s.h.Receipts[0].Body[0] = 0xff
	s.h.Txs[2].Items[0].Event.Payload = []byte(`{"n":1,"note":"<&>\u003c","big":1e400}`)
	f := s.fault("kill-point", 500, 501, 3)
	f.Point, f.PID, f.Detail = "record.before_commit", 17, "x"
	f.Deliveries = []uuid.UUID{deliveryID(1, a)}
	s.last().Pending, s.last().Dead = rows(a), rows(b)
	s.h.Gaps = []history.Gap{{From: 1, Until: 0x16_0000_0001}}
	s.h.Findings = []history.Finding{{Kind: history.Leak, At: at(5), Detail: "3 descriptors"}}
	s.h.Writes[0].Undone, s.h.Writes[0].Prepared = []int64{7}, true

	dir := filepath.Join(t.TempDir(), "episode")
	require.NoError(t, judge.Save(dir, &s.h))
	loaded, err := judge.Load(dir)
	require.NoError(t, err)
	require.Equal(t, &s.h, loaded)
	require.Equal(t, s.judge(), judge.Judge(loaded, s.expected))
}

func TestLoadSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	s, _, _ := delivered()
	dir := t.TempDir()
	require.NoError(t, judge.Save(dir, &s.h))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "faults.jsonl"), []byte("{\"class\":\"kill\"}\n{"), 0o600))
	_, err := judge.Load(dir)
	require.ErrorContains(t, err, "load object 2 of")
	require.ErrorContains(t, err, "faults.jsonl")
	require.NoError(t, os.Remove(filepath.Join(dir, "faults.jsonl")))
	_, err = judge.Load(dir)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "episode.json"), nil, 0o600))
	_, err = judge.Load(dir)
	require.ErrorContains(t, err, "0 objects")
}
