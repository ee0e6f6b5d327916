package harness

import (
	"strings"
	"sync"
)

// output collects what a process writes and tells who waits for it.
type output struct {
	mu     sync.Mutex
	text   strings.Builder
	change chan struct{} // closed at the next write and at the end; nil after the end
}

func newOutput() *output { return &output{change: make(chan struct{})} }

// Write is called by exec.Cmd, from one goroutine.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(p)
	if o.change != nil {
		close(o.change)
		o.change = make(chan struct{})
	}
	return len(p), nil
}

// close says that nothing follows.
func (o *output) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.change)
	o.change = nil
}

// written returns a channel that is closed when there is more to read; nil when there never will be.
func (o *output) written() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.change
}

// String returns everything written so far.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// line returns the first complete line that contains the substring. After the end a last line without a
// line break is complete, too.
func (o *output) line(substring string) (string, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for line := range strings.Lines(o.text.String()) {
		complete := o.change == nil || strings.HasSuffix(line, "\n")
		if complete && strings.Contains(line, substring) {
			return strings.TrimRight(line, "\r\n"), true
		}
	}
	return "", false
}
