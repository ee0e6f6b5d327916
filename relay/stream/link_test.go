package stream_test

import (
	"encoding/binary"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/delivery"
)

// link is the network between a client and a real server: it can fall silent, break, or deliver in pieces.
// It reads along, so that a test can look at what the client says.
type link struct {
	server   string
	listener net.Listener
	down     *valve // from the server to the client
	up       *valve
	statuses chan status

	mu    sync.Mutex
	conns []net.Conn
	wg    sync.WaitGroup
}

// status is one that the client sent.
type status struct {
	at    time.Time
	flush delivery.LSN
	ask   bool
}

// newLink returns a link to the server of a connection string, and the string that leads through it.
func newLink(t *testing.T, database string) (*link, string) {
	t.Helper()
	u, err := url.Parse(database)
	require.NoError(t, err)
	l := &link{server: u.Host, down: newValve(), up: newValve(), statuses: make(chan status, 1000)}
	l.listener, err = net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l.wg.Go(l.accept)
	t.Cleanup(func() {
		_ = l.listener.Close()
		l.Cut()
		l.down.Open()
		l.up.Open()
		l.wg.Wait()
	})
	u.Host = l.listener.Addr().String()
	return l, u.String()
}

func (l *link) accept() {
	for {
		client, err := l.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", l.server)
		if err != nil {
			_ = client.Close()
			continue
		}
		l.mu.Lock()
		l.conns = append(l.conns, client, server)
		l.mu.Unlock()
		l.wg.Go(func() { l.carry(server, client, l.up, l.listen()) })
		l.wg.Go(func() { l.carry(client, server, l.down, nil) })
	}
}

// carry copies bytes as far as the valve lets them.
func (l *link) carry(to, from net.Conn, v *valve, heard func([]byte)) {
	defer func() { _, _ = to.Close(), from.Close() }()
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		for done := 0; done < n; {
			m := v.take(n - done)
			if _, err := to.Write(b[done : done+m]); err != nil {
				return
			}
			if heard != nil {
				heard(b[done : done+m])
			}
			done += m
		}
		if err != nil {
			return
		}
	}
}

// listen returns what understands the client's side of a connection: the packet that starts it, which has no
// type, then messages.
func (l *link) listen() func([]byte) {
	var got []byte
	started := false
	return func(b []byte) {
		got = append(got, b...)
		for {
			head := 5
			if !started {
				head = 4
			}
			if len(got) < head {
				return
			}
			size := head - 4 + int(binary.BigEndian.Uint32(got[head-4:]))
			if len(got) < size {
				return
			}
			if m := got[head:size]; started && got[0] == 'd' && m[0] == 'r' {
				l.statuses <- status{at: time.Now(), flush: delivery.LSN(binary.BigEndian.Uint64(m[9:])), ask: m[33] == 1}
			}
			started, got = true, got[size:]
		}
	}
}

// Cut breaks all connections.
func (l *link) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		_ = c.Close()
	}
	l.conns = nil
}

// Say has the server say something that it doesn't. The link must be quiet.
func (l *link) Say(t *testing.T, message []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := l.conns[len(l.conns)-2].Write(message)
	require.NoError(t, err)
}

// valve lets bytes through: all, or a number of them.
type valve struct {
	mu      sync.Mutex
	changed sync.Cond
	open    bool
	left    int
}

func newValve() *valve {
	v := &valve{open: true}
	v.changed.L = &v.mu
	return v
}

// take waits until some of n bytes may go and returns how many.
func (v *valve) take(n int) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	for !v.open && v.left == 0 {
		v.changed.Wait()
	}
	if v.open {
		return n
	}
	n = min(n, v.left)
	v.left -= n
	return n
}

// Limit lets n more bytes through and then none.
func (v *valve) Limit(n int) { v.set(false, n) }

// Open lets everything through.
func (v *valve) Open() { v.set(true, 0) }

func (v *valve) set(open bool, left int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.open, v.left = open, left
	v.changed.Broadcast()
}
