package receive

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"sync"
)

// journal is a file of JSON lines that is only appended to. One goroutine writes and syncs what has gathered
// while it was writing the last time, so that many requests share an fsync.
type journal struct {
	file  *os.File
	wake  chan struct{} // holds a token when something was appended
	ended chan struct{}
	err   error // of the first write that failed, after which nothing is written; may be read when ended

	mu   sync.Mutex
	next *batch
}

// batch is lines that are written at once.
type batch struct {
	lines   bytes.Buffer
	durable bool          // somebody waits for the disk
	done    chan struct{} // closed when it is written, and on disk if durable
	err     error         // may be read when done
}

func newBatch() *batch { return &batch{done: make(chan struct{})} }

// newJournal owns the file, until close.
func newJournal(file *os.File) *journal {
	j := &journal{file: file, wake: make(chan struct{}, 1), ended: make(chan struct{}), next: newBatch()}
	go j.run()
	return j
}

// persist appends a line and returns when it is on disk.
func (j *journal) persist(line any) error {
	b, err := j.append(line, true)
	if err != nil {
		return err
	}
	<-b.done
	return b.err
}

// note appends a line and waits for nothing. An error comes out of close.
func (j *journal) note(line any) {
	_, _ = j.append(line, false)
}

func (j *journal) append(line any, durable bool) (*batch, error) {
	text, err := json.Marshal(line)
	if err != nil {
		return nil, err
	}
	j.mu.Lock()
	b := j.next
	b.lines.Write(text)
	b.lines.WriteByte('\n')
	b.durable = b.durable || durable
	j.mu.Unlock()
	select {
	case j.wake <- struct{}{}:
	default: // a token is there, and whoever takes it finds this line
	}
	return b, nil
}

// run writes batches until close.
func (j *journal) run() {
	defer close(j.ended)
	for range j.wake {
		j.mu.Lock()
		b := j.next
		j.next = newBatch()
		j.mu.Unlock()
		if j.err == nil {
			j.err = j.write(b)
		}
		b.err = j.err
		close(b.done)
	}
}

func (j *journal) write(b *batch) error {
	if _, err := j.file.Write(b.lines.Bytes()); err != nil {
		return err // names the file
	}
	if !b.durable {
		return nil
	}
	return j.file.Sync()
}

// close writes what is left. Nothing may be appended any more when it is called.
func (j *journal) close() error {
	close(j.wake)
	<-j.ended
	return errors.Join(j.err, j.file.Close())
}
