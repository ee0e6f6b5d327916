package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/rs/zerolog"

	"github.com/walhook/walhook/config"
)

// reloaded is what a reload has made: everything in it is checked and nothing of it runs.
type reloaded struct {
	engine  *engine
	front   *front // nil: the address stays
	metrics *front // of metrics_listen, if that has changed; nil: there is none
	keys    []string
}

// discard gives up what was not needed after all.
func (r *reloaded) discard() {
	if r.engine != nil {
		r.engine.close()
	}
	r.front.discard()
	r.metrics.discard()
}

// changed reports whether that setting is another one.
func (r *reloaded) changed(key string) bool { return slices.Contains(r.keys, key) }

// reload loads the settings again. It returns what has to take the place of what runs, or nil when that can stay: because
// only settings of the loops and the log have changed, or because the new settings cannot be used. Then nothing changes,
// and one line of the log names the setting, its value and the remedy.
func (s *service) reload(ctx context.Context) *reloaded {
	s.notify.reloading()
	next, err := s.prepareReload(ctx)
	switch {
	case err == nil && next != nil:
		return next
	case err == nil:
		s.notify.reloaded("")
	case ctx.Err() == nil:
		reason := strings.TrimPrefix(strings.ReplaceAll(err.Error(), "\n", "; "), errUsage.Error()+": ") // nobody is at a command line
		s.log.Error().Str("error", reason).Msg("reload refused, the settings stay as they were")
		s.notify.reloaded("reload refused: " + reason)
	}
	return nil
}

// prepareReload decides what has to be made anew, and makes and checks it.
func (s *service) prepareReload(ctx context.Context) (*reloaded, error) {
	cfg, err := s.load()
	if err != nil {
		return nil, err
	}
	present := s.engine.Load()
	keys := config.Changed(*present.cfg.Load(), cfg)
	if !slices.ContainsFunc(keys, func(key string) bool { return !lightKey(key) }) {
		s.relog(cfg)
		if len(keys) > 0 {
			present.adopt(cfg)
		}
		s.tellReloaded(keys, false)
		return nil, nil
	}
	next := &reloaded{keys: keys}
	if err = next.bind(ctx, s, cfg); err == nil {
		err = next.check(ctx, present)
	}
	if err != nil {
		next.discard()
		return nil, err
	}
	s.log.Info().Strs("changed", keys).Msg("new settings are checked, the relay stops to start with them")
	return next, nil
}

// bind makes what answers, and the engine that stands behind it.
func (r *reloaded) bind(ctx context.Context, s *service, cfg config.Config) (err error) {
	listen, metrics := s.front.address(), s.metricsFront.address()
	if r.changed("listen") {
		if r.front, err = s.newFront(ctx, "listen", cfg.Listen, s.pages()); err != nil {
			return err
		}
		listen = r.front.address()
	}
	if r.changed("metrics_listen") {
		if r.metrics, err = s.newMetricsFront(ctx, cfg); err != nil {
			return err
		}
		metrics = r.metrics.address()
	}
	r.engine, err = s.newEngine(ctx, cfg, listen, metrics)
	return err
}

// check looks at the database that the settings name. One that does not answer is no reason to keep settings with which
// nothing has run yet either.
func (r *reloaded) check(ctx context.Context, present *engine) error {
	err := r.engine.prepare(ctx)
	if err == nil || !lasting(err) && present.relay.Load() == nil && ctx.Err() == nil {
		return nil
	}
	cfg := r.engine.cfg.Load()
	err = fmt.Errorf("database_url %s, slot %s: %w", cfg.DatabaseURL, cfg.Slot, err)
	if !lasting(err) {
		err = fmt.Errorf("%w: once Postgres answers there, send SIGHUP again", err)
	}
	return err
}

// change puts what a reload has made in the place of what has stopped. Nobody who asks finds the door shut meanwhile: what
// is new answers before what is old ends.
func (s *service) change(next *reloaded) {
	old := s.engine.Swap(next.engine)
	s.relog(*next.engine.cfg.Load())
	for _, f := range []*front{next.front, next.metrics} {
		if f != nil {
			s.serve(f)
		}
	}
	old.close()
	if next.changed("listen") {
		s.front.close()
		s.front = next.front
	}
	if next.changed("metrics_listen") {
		s.metricsFront.close()
		s.metricsFront = next.metrics
	}
	s.tellReloaded(next.keys, true)
	s.notify.reloaded("")
}

func (s *service) tellReloaded(keys []string, restarted bool) {
	s.addresses(s.log.Info().Strs("changed", keys).Bool("restarted", restarted)).Msg("reloaded")
}

// lightKey names the settings that the relay itself knows nothing of: those of the log and of the loops beside it.
func lightKey(key string) bool {
	group, _, _ := strings.Cut(key, ".")
	return slices.Contains([]string{"log_level", "log_format", "replication.wal_disk_size"}, key) ||
		slices.Contains([]string{"retention", "alerts"}, group)
}

// logSwitch is a log whose level and form can change under those who write to it.
type logSwitch struct {
	app *app
	out atomic.Pointer[io.Writer]
}

// logger writes to where the switch points. It leaves the level to zerolog's global one, which is the only one that can
// change in loggers that were handed on; this is the process's own business and not done by packages.
func (l *logSwitch) logger() zerolog.Logger {
	return zerolog.New(l).Level(zerolog.TraceLevel).With().Timestamp().Logger()
}

// apply takes the level and form over.
func (l *logSwitch) apply(cfg config.Config) {
	out, level := l.app.logOutput(cfg)
	l.out.Store(&out)
	zerolog.SetGlobalLevel(level)
}

// Write writes one message.
func (l *logSwitch) Write(message []byte) (int, error) {
	out := l.out.Load()
	if out == nil {
		return 0, errors.New("the log has no output yet")
	}
	return (*out).Write(message)
}
