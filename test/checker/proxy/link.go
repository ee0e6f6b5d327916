package proxy

import (
	"context"
	"errors"
	"io"
	"net"
)

// chunkSize is how many bytes are read at once, in each direction of a link.
const chunkSize = 32 << 10

// link is a client's connection and the one to the target that belongs to it.
type link struct {
	client *net.TCPConn
	server *net.TCPConn // nil until the target is reached; set while the link is in the set of open ones
	ctx    context.Context
	cancel context.CancelFunc // when the link is broken or has ended
}

// reset breaks links that were taken out of the set.
func reset(links []*link) {
	for _, l := range links {
		resetOnClose(l.client)
		if l.server != nil {
			resetOnClose(l.server)
		}
		l.close()
	}
}

// resetOnClose makes the kernel send RST when the connection is closed: it does for a linger time of zero.
func resetOnClose(conn *net.TCPConn) {
	_ = conn.SetLinger(0) // errors mean that the peer was faster
}

// close closes a link that was taken out of the set.
func (l *link) close() {
	l.cancel()
	_ = l.client.Close() // errors mean that the peer was faster
	if l.server != nil {
		_ = l.server.Close()
	}
}

// serve connects a link to the target and forwards until both sides have ended or the link is broken.
func (p *Proxy) serve(l *link) {
	defer p.end(l)
	if !p.flows(l) || !p.connect(l) {
		p.sever(l)
		return
	}
	up := make(chan struct{})
	p.running.Go(func() {
		defer close(up)
		p.pump(l, l.server, l.client)
	})
	p.pump(l, l.client, l.server)
	<-up
}

// connect reaches the target, and reports whether the link is still open then.
func (p *Proxy) connect(l *link) bool {
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	var dialer net.Dialer
	conn, err := dialer.DialContext(l.ctx, "tcp", target)
	if err != nil {
		return false
	}
	server := conn.(*net.TCPConn) // what dialling tcp gives

	p.mu.Lock()
	defer p.mu.Unlock()
	if _, open := p.links[l]; !open {
		resetOnClose(server)
		_ = server.Close()
		return false
	}
	l.server = server
	return true
}

// end closes a link, unless another has taken it: who takes a link out of the set is the one to close it.
func (p *Proxy) end(l *link) {
	if p.takeOne(l) {
		l.close()
	}
}

// sever breaks a link, unless another has taken it.
func (p *Proxy) sever(l *link) {
	if p.takeOne(l) {
		reset([]*link{l})
	}
}

// takeOne takes a link out of the set of open ones. It reports false when another was faster.
func (p *Proxy) takeOne(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, open := p.links[l]
	delete(p.links, l)
	return open
}

// pump forwards one direction of a link until it ends. An end is passed on as an end and an error as a reset.
func (p *Proxy) pump(l *link, dst, src *net.TCPConn) {
	chunk := make([]byte, chunkSize)
	for {
		n, err := src.Read(chunk)
		if n > 0 && !p.forward(l, dst, chunk[:n]) {
			return
		}
		if err == nil {
			continue
		}
		if p.flows(l) && errors.Is(err, io.EOF) {
			err = dst.CloseWrite()
		}
		if err != nil {
			p.sever(l)
		}
		return
	}
}

// forward writes a chunk when it may pass, or the part of it that CutAfter has left. It reports whether the
// link is still open.
func (p *Proxy) forward(l *link, dst *net.TCPConn, chunk []byte) bool {
	n, exhausted, ok := p.reserve(l, len(chunk))
	if !ok {
		return false
	}
	_, err := dst.Write(chunk[:n])
	if exhausted != nil {
		p.fire(exhausted)
		return false
	}
	if err != nil {
		p.sever(l)
		return false
	}
	return true
}

// reserve waits until bytes may pass and counts up to n of them. When they are the last before a cut, or none
// are left, it returns the order, which the caller carries out after writing. It is not ok when the link was
// broken.
func (p *Proxy) reserve(l *link, n int) (passing int, exhausted *cut, ok bool) {
	for {
		p.mu.Lock()
		_, open := p.links[l]
		released := p.released
		if open && released == nil {
			passing, exhausted = p.count(n)
			p.mu.Unlock()
			return passing, exhausted, true
		}
		p.mu.Unlock()
		if !open {
			return 0, nil, false
		}
		select {
		case <-released:
		case <-l.ctx.Done():
		}
	}
}

// count takes up to n bytes from what CutAfter has left. The lock is held.
func (p *Proxy) count(n int) (passing int, exhausted *cut) {
	c := p.armed
	if c == nil || n == 0 {
		return n, nil
	}
	passing = int(min(int64(n), c.left))
	c.left -= int64(passing)
	if c.left > 0 {
		return passing, nil
	}
	return passing, c
}

// flows waits while the proxy holds everything back, and reports whether the link is still open then.
func (p *Proxy) flows(l *link) bool {
	_, _, ok := p.reserve(l, 0)
	return ok
}
