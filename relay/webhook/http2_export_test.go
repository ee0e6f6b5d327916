package webhook

import (
	"net/http"
	"time"
)

// PingForTest makes the Sender ask silent HTTP/2 connections for a sign of life after that long, and wait for it
// as long. Call it before the first request.
func (s *Sender) PingForTest(after time.Duration) {
	s.transport.HTTP2.SendPingTimeout, s.transport.HTTP2.PingTimeout = after, after
}

// HTTP2ForTest returns the settings of HTTP/2.
func (s *Sender) HTTP2ForTest() http.HTTP2Config { return *s.transport.HTTP2 }
