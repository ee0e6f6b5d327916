// Package localpg runs a throw-away Postgres server from binaries that are on the machine already. The demo,
// the benchmark and the tests use it. It listens on a loopback port, trusts everybody who reaches that, and
// is made ready for logical replication.
//
// Postgres refuses to run as root, so when the caller is root every Postgres process runs as the
// unprivileged user 65534 (nobody).
package localpg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Timeouts of what has no deadline of its own.
const (
	startTimeout = 60 * time.Second // includes crash recovery
	stopTimeout  = 60 * time.Second
	killTimeout  = 10 * time.Second // of an immediate stop while closing; then SIGKILL
)

// Options say which server to start.
type Options struct {
	// BinDir holds initdb and postgres; empty means what Find returns.
	BinDir string
	// Dir is where the server keeps everything: its data directory is Dir/data, its log
	// Dir/postgres.log. Empty means a temporary directory, which Close removes. A Dir that holds a data
	// directory already is started as it is, so a server can be continued, or a copy of one started.
	Dir string
	// Settings are further lines of postgresql.conf, which win over the package's own.
	Settings map[string]string
}

// Server is a Postgres server and the child process that it runs in. Its methods may be called from
// several goroutines.
type Server struct {
	binDir    string
	dir       string
	temporary bool // Close removes dir
	account   *account
	port      int

	life   sync.Mutex // held by Restart and Close: one of them at a time
	closed bool

	mu    sync.Mutex // guards child
	child *child
}

// Start makes a cluster unless o.Dir holds one, starts it and waits until it answers. ctx bounds the start
// only; the server then runs until Stop or Close, or until this process ends in whatever way (on Linux).
// After an error nothing is left behind; when the server did not start, the error ends with its log.
func Start(ctx context.Context, o Options) (_ *Server, err error) {
	s := &Server{account: unprivileged()}
	if o.BinDir == "" {
		s.binDir, err = Find()
	} else {
		s.binDir, err = filepath.Abs(o.BinDir) // the programs do not run in our working directory
	}
	if err != nil {
		return nil, err
	}
	conf, err := configuration(o.Settings)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if err := s.prepareDir(o.Dir); err != nil {
		return nil, err
	}
	if err := s.prepareData(ctx, conf); err != nil {
		return nil, err
	}
	if err := s.bootOnFreePort(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// URL returns the connection string of a database for the superuser postgres, who needs no password.
func (s *Server) URL(database string) string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s?sslmode=disable", s.port, database)
}

// Port returns the port on 127.0.0.1. It stays the same over Restart.
func (s *Server) Port() int { return s.port }

// Dir returns the directory that holds everything of the server, an absolute path.
func (s *Server) Dir() string { return s.dir }

// DataDir returns the data directory, PGDATA in Postgres's words.
func (s *Server) DataDir() string { return filepath.Join(s.dir, "data") }

// BinDir returns the directory of the binaries in use.
func (s *Server) BinDir() string { return s.binDir }

// Version returns the major version of the data directory, such as 15; 0 when it cannot be read, as after
// Close.
func (s *Server) Version() int {
	text, err := os.ReadFile(filepath.Join(s.DataDir(), "PG_VERSION"))
	if err != nil {
		return 0
	}
	version, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return version
}

// Log returns the server's log since it was made; empty when it cannot be read, as after Close.
func (s *Server) Log() string {
	text, _ := os.ReadFile(s.logPath())
	return string(text)
}

func (s *Server) logPath() string { return filepath.Join(s.dir, "postgres.log") }

// PID returns the postmaster's process id; 0 when the server is not running.
func (s *Server) PID() int {
	if c := s.running(); c != nil {
		return c.pid()
	}
	return 0
}

// running returns the postmaster, or nil when there is none or it has ended.
func (s *Server) running() *child {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.child == nil || s.child.hasExited() {
		return nil
	}
	return s.child
}

// Stop asks the server to end and waits until it has, for a minute at most. The modes are Postgres's own:
// "smart" waits for the clients to leave, "fast" breaks their connections and writes a checkpoint,
// "immediate" does neither, so that the next start recovers as after a crash. A server that is not running
// is no error. Nothing is removed: Restart continues with the same data.
func (s *Server) Stop(mode string) error { return s.stop(mode, stopTimeout) }

func (s *Server) stop(mode string, within time.Duration) error {
	// https://www.postgresql.org/docs/current/server-shutdown.html
	signals := map[string]syscall.Signal{"smart": syscall.SIGTERM, "fast": syscall.SIGINT, "immediate": syscall.SIGQUIT}
	signal, ok := signals[mode]
	if !ok {
		return fmt.Errorf("stop postgres: unknown mode %q (want smart, fast or immediate)", mode)
	}
	c := s.running()
	if c == nil {
		return nil
	}
	if err := c.end(signal, within); err != nil {
		return fmt.Errorf("stop postgres (%s): %w", mode, err)
	}
	return nil
}

// Restart starts the server again on the same directory and port; one that is still running is stopped
// first, in fast mode. It recovers as Postgres does when the last stop was immediate or the postmaster was
// killed. ctx bounds the start only.
func (s *Server) Restart(ctx context.Context) error {
	s.life.Lock()
	defer s.life.Unlock()
	if s.closed {
		return errors.New("restart postgres: the server was closed")
	}
	if err := s.Stop("fast"); err != nil {
		return err
	}
	// A postmaster that was killed leaves processes, and while they hold its shared memory no other starts.
	if err := killRemaining(s.dir); err != nil {
		return fmt.Errorf("restart postgres: %w", err)
	}
	return s.boot(ctx)
}

// Close stops the server at once, by SIGKILL if need be, and removes its directory if Start made it. Calling
// it again does nothing.
func (s *Server) Close() error {
	s.life.Lock()
	defer s.life.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	if err := s.stop("immediate", killTimeout); err != nil {
		if c := s.running(); c != nil {
			if err := c.end(syscall.SIGKILL, killTimeout); err != nil {
				return fmt.Errorf("close postgres: %w", err)
			}
		}
	}
	if s.dir == "" {
		return nil
	}
	if err := killRemaining(s.dir); err != nil {
		return fmt.Errorf("close postgres: %w", err)
	}
	if !s.temporary {
		return nil
	}
	if err := os.RemoveAll(s.dir); err != nil {
		return fmt.Errorf("remove the postgres directory: %w", err)
	}
	return nil
}
