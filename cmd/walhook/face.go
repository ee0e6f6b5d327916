package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/walhook/walhook/config"
	"github.com/walhook/walhook/relay/admin"
	"github.com/walhook/walhook/relay/api"
	"github.com/walhook/walhook/relay/route"
	"github.com/walhook/walhook/relay/ui"
)

const (
	// faceConnections are all that API and dashboard take of the database, however many ask.
	faceConnections = 8
	// faceStatement bounds one statement of theirs: unlike what the relay does, nothing of it must be done.
	faceStatement = 30 * time.Second
	// faceGrace is how long requests under way may take when an engine ends. Pages that listen end at once, and connect again.
	faceGrace = 3 * time.Second
)

// face is what people and programs see of an engine: API and dashboard over a pool of their own. Without api.enabled there
// is nothing to see. It lives as long as its engine.
type face struct {
	store   *admin.Store
	pool    *pgxpool.Pool
	handler http.Handler
	address string
	open    atomic.Bool // false: nobody knows yet whether there is a token, and the address is public

	requests, streams context.Context // under which requests are answered
	endRequests       context.CancelFunc
	endStreams        context.CancelFunc

	mu     sync.Mutex
	closed bool
	busy   sync.WaitGroup // requests under way
}

// answering is a face without a database, which lets requests in once it is open.
func answering(handler http.Handler) *face {
	f := &face{handler: handler}
	f.requests, f.endRequests = context.WithCancel(context.Background())
	f.streams, f.endStreams = context.WithCancel(f.requests)
	return f
}

// newFace makes the face of an engine that answers at that address. It does not connect.
func (e *engine) newFace(ctx context.Context, cfg config.Config, address net.Addr) (*face, error) {
	f := answering(http.NotFoundHandler())
	if !cfg.API.Enabled {
		f.open.Store(true)
		return f, nil
	}
	poolConfig, err := pgxpool.ParseConfig(cfg.DatabaseURL.Reveal())
	if err != nil {
		return nil, fmt.Errorf("%w: database_url: %w", errUsage, err)
	}
	poolConfig.MaxConns = faceConnections
	parameters := poolConfig.ConnConfig.RuntimeParams
	parameters["application_name"] = "walhook-api"
	parameters["statement_timeout"] = fmt.Sprint(faceStatement.Milliseconds())
	parameters["idle_in_transaction_session_timeout"] = parameters["statement_timeout"]
	if f.pool, err = pgxpool.NewWithConfig(ctx, poolConfig); err != nil {
		return nil, fmt.Errorf("connect to Postgres: %w", err)
	}
	f.store = admin.New(f.pool, admin.Options{Slot: cfg.Slot, Token: cfg.API.Token.Reveal(), Seal: seal(e.secrets),
		CheckFilters: func(filters []byte) error { _, err := route.Compile(filters); return err }})
	f.address = address.String()
	f.open.Store(cfg.API.Token != "" || isLoopback(address))
	f.handler = f.routes(e, cfg)
	return f, nil
}

// routes puts API and dashboard under the prefix.
func (f *face) routes(e *engine, cfg config.Config) http.Handler {
	gate, prefix := admin.NewGate(f.store), cfg.PathPrefix
	return under(prefix,
		api.New(api.Options{Store: f.store, Gate: gate, Prefix: prefix, Version: version, Log: e.log.With().Str("component", "api").Logger()}),
		ui.New(ui.Options{Store: f.store, Gate: gate, Prefix: prefix, Version: version, Log: e.log.With().Str("component", "ui").Logger(),
			State: e.stateForUI, Forecast: e.forecastForUI, Doctor: e.doctorForUI}))
}

// under hands paths that begin with the prefix on, without it. It is no http.ServeMux: that would redirect paths which are
// not clean, while API and dashboard refuse them.
func under(prefix string, programs, people http.Handler) http.Handler {
	both := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == api.Base || strings.HasPrefix(r.URL.Path, api.Base+"/") {
			programs.ServeHTTP(w, r)
			return
		}
		people.ServeHTTP(w, r)
	})
	if prefix == "" {
		return both
	}
	stripped := http.StripPrefix(prefix, both)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == prefix:
			http.Redirect(w, r, prefix+"/", http.StatusPermanentRedirect)
		case strings.HasPrefix(r.URL.Path, prefix+"/"):
			stripped.ServeHTTP(w, r)
		default:
			http.NotFound(w, r)
		}
	})
}

// isLoopback reports whether only this machine can reach an address.
func isLoopback(address net.Addr) bool {
	tcp, ok := address.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// admit lets requests in, once it is known that there is a token: whoever serves API and dashboard to others must have meant
// to. Whether there is one is asked for once; without any nobody gets in anyway.
func (f *face) admit(ctx context.Context) error {
	if f.open.Load() {
		return nil
	}
	has, err := f.store.HasToken(ctx)
	if err != nil {
		return fmt.Errorf("look for a token of API and dashboard: %w", err)
	}
	if !has {
		return fmt.Errorf("%w: listen is %s, which others than this machine can reach, and nobody has a token for API and dashboard: "+
			"run walhook token create --name NAME --scope read,manage, or set WALHOOK_API_TOKEN, or WALHOOK_API_ENABLED=false to serve neither", errUsage, f.address)
	}
	f.open.Store(true)
	return nil
}

// answer answers under a context that ends with the engine. It reports false, and has done nothing, when the face is not
// open yet or closed.
func (f *face) answer(w http.ResponseWriter, r *http.Request) bool {
	if !f.open.Load() || !f.enter() {
		return false
	}
	defer f.busy.Done()
	until := f.requests
	if strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
		until = f.streams
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(until, cancel)()
	defer context.AfterFunc(f.requests, func() { hangUp(w) })()
	f.handler.ServeHTTP(w, r.WithContext(ctx))
	return true
}

// hangUp ends what a handler waits for of its client, which no context does.
func hangUp(w http.ResponseWriter) {
	c, past := http.NewResponseController(w), time.Unix(1, 0)
	_ = c.SetReadDeadline(past) // not every server has deadlines
	_ = c.SetWriteDeadline(past)
}

// within is a context that also ends with the requests, for what is done on behalf of several.
func (f *face) within(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(f.requests, cancel)
	return ctx, func() { stop(); cancel() }
}

// enter counts a request, unless the face is closed.
func (f *face) enter() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed {
		f.busy.Add(1)
	}
	return !f.closed
}

// close ends pages that listen at once and other requests after a moment, and then the connections.
func (f *face) close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.endStreams()
	impatient := time.AfterFunc(faceGrace, f.endRequests)
	f.busy.Wait()
	impatient.Stop()
	f.endRequests()
	if f.pool != nil {
		f.pool.Close()
	}
}
