package receive

import (
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/walhook/walhook/test/checker/history"
)

// answerBody is the body of every response. One that is broken off announces earlyLength bytes.
const (
	answerBody  = "done\n"
	earlyLength = 1000
)

// exchange is a request that has arrived, and its answer.
type exchange struct {
	w       http.ResponseWriter
	r       *http.Request
	receipt history.Receipt
	numbers []int64         // of the events; -1 for one that has none
	delay   time.Duration   // of Slow
	healed  <-chan struct{} // ends Hang
}

// answer does what the receipt's behaviour says and completes the receipt. Unless it returns true, the caller
// has to close the connection.
//
// AnsweredAt is taken just before the first byte goes out, so that nothing the client does because of the
// answer comes before it. The Status of an early answer counts, for its status line was written.
func (e *exchange) answer() bool {
	switch Behaviour(e.receipt.Behaviour) {
	case Slow:
		select {
		case <-time.After(e.delay):
		case <-e.r.Context().Done():
		}
	case Error:
		return e.write(http.StatusInternalServerError, len(answerBody))
	case Busy:
		e.w.Header().Set("Retry-After", "1")
		return e.write(http.StatusTooManyRequests, len(answerBody))
	case Gone:
		return e.write(http.StatusGone, len(answerBody))
	case Reset:
		return e.reset()
	case Hang:
		select {
		case <-e.healed:
		case <-e.r.Context().Done():
		}
		e.receipt.AnsweredAt = time.Now()
		return false
	case Early:
		e.write(http.StatusOK, earlyLength)
		return false
	}
	return e.write(http.StatusOK, len(answerBody))
}

// write sends a response that announces length bytes of body. It sets the receipt's status when everything
// was written and the client had not gone before.
func (e *exchange) write(status, length int) bool {
	e.receipt.AnsweredAt = time.Now()
	if e.r.Context().Err() != nil {
		return false
	}
	e.w.Header().Set("Content-Length", strconv.Itoa(length))
	e.w.WriteHeader(status)
	if _, err := io.WriteString(e.w, answerBody); err != nil {
		return false
	}
	if err := http.NewResponseController(e.w).Flush(); err != nil {
		return false
	}
	e.receipt.Status = status
	return true
}

// reset closes the connection so that the kernel sends RST: it does for a linger time of zero.
func (e *exchange) reset() bool {
	e.receipt.AnsweredAt = time.Now()
	conn, _, err := http.NewResponseController(e.w).Hijack()
	if err != nil {
		return false
	}
	_ = conn.(*net.TCPConn).SetLinger(0) // errors mean that the client was faster
	_ = conn.Close()
	return true // there is none left to close
}
