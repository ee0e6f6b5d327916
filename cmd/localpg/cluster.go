package localpg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// confFile is the package's part of the configuration, included by postgresql.conf. ALTER SYSTEM still wins
// over it, which it would not over the command line.
const confFile = "localpg.conf"

// defaults are enough replication for many relays beside each other in one server. There is no Unix socket:
// its directory would have to be short and writable for an unprivileged user, and nothing here needs it.
// authentication_timeout bounds how long a client that says nothing, as behind a broken proxy, holds up even
// an immediate stop: a backend that was forked to refuse it is not signalled, only waited for.
var defaults = map[string]string{
	"listen_addresses":          "127.0.0.1",
	"unix_socket_directories":   "",
	"wal_level":                 "logical",
	"max_replication_slots":     "64",
	"max_wal_senders":           "64",
	"max_connections":           "200",
	"max_prepared_transactions": "20",
	"authentication_timeout":    "10s",
}

// configuration writes the defaults and the extra settings as lines of a configuration file.
func configuration(extra map[string]string) ([]byte, error) {
	all := maps.Clone(defaults)
	maps.Copy(all, extra)
	quote := strings.NewReplacer(`'`, `''`, `\`, `\\`)
	var conf bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(all)) {
		value := all[name]
		if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.") != "" {
			return nil, fmt.Errorf("postgres setting %q is not a name (want letters, digits, _ and .)", name)
		}
		if strings.ContainsAny(value, "\n\r\x00") {
			return nil, fmt.Errorf("postgres setting %s: %q contains a line break or NUL, which postgresql.conf cannot hold", name, value)
		}
		fmt.Fprintf(&conf, "%s = '%s'\n", name, quote.Replace(value))
	}
	return conf.Bytes(), nil
}

// prepareDir makes the server's directory, and sees to it that the user who runs Postgres gets there.
func (s *Server) prepareDir(dir string) error {
	var err error
	if dir == "" {
		if dir, err = os.MkdirTemp(s.account.tempDir(), "walhook-pg-"); err != nil {
			return fmt.Errorf("make a directory for postgres: %w", err)
		}
		s.temporary = true
	} else if err = os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make a directory for postgres: %w", err)
	}
	if s.dir, err = filepath.Abs(dir); err != nil {
		return fmt.Errorf("make a directory for postgres: %w", err)
	}
	if err := s.refuseForeign(); err != nil || s.account == nil {
		return err
	}
	if err := s.account.own(s.dir); err != nil {
		return fmt.Errorf("give %s to user %d, who runs postgres for root: %w", s.dir, s.account.uid, err)
	}
	for _, path := range []string{s.dir, s.binDir} {
		if err := s.account.reach(path); err != nil {
			return err
		}
	}
	return nil
}

// refuseForeign keeps us from taking over a directory with other things in it.
func (s *Server) refuseForeign() error {
	if s.initialized() {
		return nil
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("look into the postgres directory: %w", err)
	}
	if len(entries) > 0 {
		return fmt.Errorf("%s is neither empty nor the directory of a server made here (it has no data/PG_VERSION): "+
			"choose another one", s.dir)
	}
	return nil
}

func (s *Server) initialized() bool { return s.Version() != 0 }

// prepareData runs initdb unless there is a data directory already, and writes the configuration.
func (s *Server) prepareData(ctx context.Context, conf []byte) error {
	if !s.initialized() {
		if err := s.initdb(ctx); err != nil {
			return fmt.Errorf("make a postgres cluster: %w", err)
		}
	}
	path := filepath.Join(s.DataDir(), confFile)
	if err := os.WriteFile(path, conf, 0o600); err != nil {
		return fmt.Errorf("configure postgres: %w", err)
	}
	if s.account != nil {
		if err := os.Lchown(path, s.account.uid, s.account.gid); err != nil {
			return fmt.Errorf("configure postgres: %w", err)
		}
	}
	return nil
}

// initdb makes the data directory. It does not wait for the disk (--no-sync): a cluster that a power cut
// destroys a second after its birth holds nothing yet.
func (s *Server) initdb(ctx context.Context) error {
	var output bytes.Buffer
	cmd := s.command("initdb", "-D", s.DataDir(), "-U", "postgres", "--auth=trust",
		"--encoding=UTF8", "--locale=C", "--no-sync")
	cmd.Stdout, cmd.Stderr = &output, &output
	c, err := launch(cmd)
	if err != nil {
		return fmt.Errorf("run %s: %w", cmd.Path, err)
	}
	if err := c.wait(ctx); err != nil {
		return fmt.Errorf("run %s: %w\n%s", cmd.Path, err, tail(output.String()))
	}
	conf, err := os.OpenFile(filepath.Join(s.DataDir(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(conf, "include_if_exists '%s'\n", confFile)
	return errors.Join(err, conf.Close())
}

// tail returns the last lines of a log, enough to show why a server ended.
func tail(log string) string {
	const most = 20
	lines := strings.Split(strings.TrimRight(log, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-most):], "\n")
}
