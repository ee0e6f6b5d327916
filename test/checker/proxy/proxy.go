// Package proxy is a TCP proxy for one link of the checker: between the relay and Postgres, or between the
// relay and the receivers. It passes bytes, half-closes and resets on as they come, until it is told to break
// something.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
)

// Proxy forwards the connections that it accepts to a target. Its methods may be called from any goroutine.
type Proxy struct {
	listener *net.TCPListener
	running  sync.WaitGroup // accept, and everything that serves a link
	failed   error          // why accept ended early; may be read when running is done

	mu       sync.Mutex
	target   string
	links    map[*link]struct{} // the open ones
	refusing bool
	closed   bool
	released chan struct{} // closed by Release; nil while bytes flow
	armed    *cut          // what CutAfter has ordered and has not happened yet
}

// cut is an order to break every connection after some bytes. The proxy's lock guards it.
type cut struct {
	left     int64 // bytes that may still pass
	fired    bool
	happened chan struct{}
}

// New starts a proxy on a loopback port. The target, host:port, need not be there yet.
func New(target string) (*Proxy, error) {
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, fmt.Errorf("proxy for %s: %w", target, err)
	}
	p := &Proxy{listener: listener, target: target, links: make(map[*link]struct{})}
	p.running.Go(p.accept)
	return p, nil
}

// Addr is where the proxy listens, host:port. It stays the same until Close.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Retarget makes connections that are accepted from now on go to another host:port. Open ones stay where they
// are.
func (p *Proxy) Retarget(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

// Conns is how many connections are open: accepted, and neither ended by both sides nor broken.
func (p *Proxy) Conns() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

// Cut breaks every open connection with a reset to both sides. A target that is only just being reached sees
// an ordinary end, before any byte.
func (p *Proxy) Cut() {
	p.mu.Lock()
	links := p.take()
	p.mu.Unlock()
	reset(links)
}

// CutAfter lets n more bytes pass, counted over all connections and both directions, and then breaks every
// open connection right there: the last chunk is passed on in part. The channel is closed when that has
// happened. A second order takes the place of one that has not happened, whose channel then stays open.
//
// Nothing waits for what the peers read, so bytes that another connection is writing at that moment may be lost
// in the reset although they were counted.
func (p *Proxy) CutAfter(n int64) <-chan struct{} {
	c := &cut{left: n, happened: make(chan struct{})}
	p.mu.Lock()
	p.armed = c
	p.mu.Unlock()
	if n <= 0 {
		p.fire(c)
	}
	return c.happened
}

// fire carries an order out, once: several connections may find that nothing is left, and one that comes late
// must not break those that were made since.
func (p *Proxy) fire(c *cut) {
	p.mu.Lock()
	if c.fired {
		p.mu.Unlock()
		return
	}
	c.fired = true
	if p.armed == c {
		p.armed = nil
	}
	links := p.take()
	p.mu.Unlock()
	reset(links)
	close(c.happened)
}

// Hold makes the proxy a black hole: nothing passes in either direction, neither bytes nor the end of a
// connection, and new connections are accepted and get no further. Only a chunk that is being written already
// may still arrive.
func (p *Proxy) Hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.released == nil {
		p.released = make(chan struct{})
	}
}

// Release ends Hold. What was held back flows on, and connections made meanwhile go to the target.
func (p *Proxy) Release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.released != nil {
		close(p.released)
		p.released = nil
	}
}

// Refuse makes the proxy reset new connections at once, and breaks the open ones; or it ends that. The port
// stays open, because a port that was given up might be somebody else's when it is wanted again. So a client
// does connect, and then reads or writes a reset.
func (p *Proxy) Refuse(refuse bool) {
	p.mu.Lock()
	p.refusing = refuse
	var links []*link
	if refuse {
		links = p.take()
	}
	p.mu.Unlock()
	reset(links)
}

// Close breaks every connection, frees the port and waits until nothing runs any more. Its error is the one
// that accepting connections ended with before, if it did.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.closed = true
	links := p.take()
	p.mu.Unlock()
	_ = p.listener.Close() // an error means that it was closed before
	reset(links)
	p.running.Wait()
	return p.failed
}

// accept opens a link for every connection until the listener is closed.
func (p *Proxy) accept() {
	for {
		client, err := p.listener.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			p.failed = fmt.Errorf("accept on %s: %w", p.Addr(), err)
			return
		}
		p.open(client)
	}
}

// open registers a connection and serves it, unless connections are refused.
func (p *Proxy) open(client *net.TCPConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refusing || p.closed {
		resetOnClose(client)
		_ = client.Close()
		return
	}
	l := &link{client: client}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	p.links[l] = struct{}{}
	p.running.Go(func() { p.serve(l) })
}

// take empties the set of open links. Who takes one is the only one to close it. The lock is held.
func (p *Proxy) take() []*link {
	links := slices.Collect(maps.Keys(p.links))
	clear(p.links)
	return links
}
