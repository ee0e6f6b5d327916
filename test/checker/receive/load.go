package receive

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/walhook/walhook/test/checker/history"
)

// completion is the log's second line on a request, written when it was answered. The first is the receipt.
type completion struct {
	Answered   int64     `json:"answered"` // the receipt's Seq
	AnsweredAt time.Time `json:"answered_at"`
	Status     int       `json:"status"`
}

// Load reads the receipts that a Server logged, in order of arrival. One that was not answered before the log
// ends has a zero AnsweredAt. The log of a process that was killed may end in the middle of a line; what such
// a line said was not promised to anybody, so it is left out.
func Load(path string) ([]history.Receipt, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("load receipts: %w", err)
	}
	defer func() { _ = file.Close() }() // it was only read
	receipts, err := decode(file)
	if err != nil {
		return nil, fmt.Errorf("load receipts from %s: %w", path, err)
	}
	return receipts, nil
}

func decode(log io.Reader) ([]history.Receipt, error) {
	receipts := make(map[int64]history.Receipt) // concurrent requests are not logged in order
	for lines := json.NewDecoder(log); ; {
		var line struct {
			Answered int64 `json:"answered"`
			history.Receipt
		}
		err := lines.Decode(&line)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if line.Answered == 0 {
			receipts[line.Seq] = line.Receipt
			continue
		}
		receipt, ok := receipts[line.Answered]
		if !ok {
			return nil, fmt.Errorf("request %d was answered and did not arrive", line.Answered)
		}
		receipt.AnsweredAt, receipt.Status = line.AnsweredAt, line.Status
		receipts[line.Answered] = receipt
	}
	return slices.SortedFunc(maps.Values(receipts), func(a, b history.Receipt) int { return cmp.Compare(a.Seq, b.Seq) }), nil
}
