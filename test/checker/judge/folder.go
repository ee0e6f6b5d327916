package judge

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/walhook/walhook/test/checker/history"
)

// The files of a saved history: one object, and lists with one object a line.
const (
	episodeFile   = "episode.json"
	txsFile       = "txs.jsonl"
	writesFile    = "writes.jsonl"
	receiptsFile  = "receipts.jsonl"
	faultsFile    = "faults.jsonl"
	snapshotsFile = "snapshots.jsonl"
)

// Save writes the history to a folder, which it makes, so that it can be judged again.
func Save(dir string, h *history.History) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("save a history: %w", err)
	}
	return errors.Join(
		saveLines(dir, episodeFile, []history.History{*h}),
		saveLines(dir, txsFile, h.Txs),
		saveLines(dir, writesFile, h.Writes),
		saveLines(dir, receiptsFile, h.Receipts),
		saveLines(dir, faultsFile, h.Faults),
		saveLines(dir, snapshotsFile, h.Snapshots))
}

// Load reads what Save wrote.
func Load(dir string) (*history.History, error) {
	heads, err := loadLines[history.History](dir, episodeFile)
	if err != nil {
		return nil, err
	}
	if len(heads) != 1 {
		return nil, fmt.Errorf("load %s: %d objects, not one", filepath.Join(dir, episodeFile), len(heads))
	}
	h := &heads[0]
	h.Txs, err = loadLines[history.Tx](dir, txsFile)
	errs := []error{err}
	h.Writes, err = loadLines[history.Write](dir, writesFile)
	errs = append(errs, err)
	h.Receipts, err = loadLines[history.Receipt](dir, receiptsFile)
	errs = append(errs, err)
	h.Faults, err = loadLines[history.Fault](dir, faultsFile)
	errs = append(errs, err)
	h.Snapshots, err = loadLines[history.Snapshot](dir, snapshotsFile)
	if err := errors.Join(append(errs, err)...); err != nil {
		return nil, err
	}
	return h, nil
}

func saveLines[T any](dir, name string, list []T) (err error) {
	f, err := os.Create(filepath.Join(dir, name))
	if err != nil {
		return fmt.Errorf("save a history: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := bufio.NewWriter(f)
	lines := json.NewEncoder(w)
	lines.SetEscapeHTML(false) // payloads stay as they are
	for i := range list {
		if err := lines.Encode(&list[i]); err != nil {
			return fmt.Errorf("save line %d of %s: %w", i+1, f.Name(), err)
		}
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("save %s: %w", f.Name(), err)
	}
	return nil
}

func loadLines[T any](dir, name string) ([]T, error) {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return nil, fmt.Errorf("load a history: %w", err)
	}
	defer func() { _ = f.Close() }()
	var list []T
	lines := json.NewDecoder(bufio.NewReader(f))
	for {
		var one T
		if err := lines.Decode(&one); errors.Is(err, io.EOF) {
			return list, nil
		} else if err != nil {
			return nil, fmt.Errorf("load object %d of %s: %w", len(list)+1, f.Name(), err)
		}
		list = append(list, one)
	}
}
