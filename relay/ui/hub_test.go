package ui

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/admin"
)

// screen is a page that is open.
type screen struct {
	http.ResponseWriter
	mu    sync.Mutex
	body  bytes.Buffer
	block chan struct{} // nil: what is written is taken at once
	close context.CancelFunc
	done  chan error
}

func (s *screen) Write(b []byte) (int, error) {
	if s.block != nil {
		<-s.block
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.body.Write(b)
}

func (s *screen) Flush() {}

// shows returns what has come, without comments.
func (s *screen) shows() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.ReplaceAll(s.body.String(), ":\n\n", "")
}

// shut closes the page and waits for its handler.
func (s *screen) shut() error {
	s.close()
	return <-s.done
}

func newTestHub(check func(context.Context, string) error) (*hub, *bytes.Buffer) {
	var log bytes.Buffer
	return newHub(check, zerolog.New(&log)), &log
}

// everybody may do everything.
var everybody = &admin.Principal{Name: "all", Scopes: admin.Scopes}

func openScreen(h *hub, who *admin.Principal, token, topic string, look func(context.Context) ([]message, error)) *screen {
	return openBlocked(h, who, token, topic, nil, look)
}

func openBlocked(h *hub, who *admin.Principal, token, topic string, block chan struct{}, look func(context.Context) ([]message, error)) *screen {
	ctx, cancel := context.WithCancel(context.Background())
	r := httptest.NewRequestWithContext(ctx, "GET", "/live", nil)
	if token != "" {
		r.AddCookie(&http.Cookie{Name: sessionCookie, Value: token})
	}
	s := &screen{ResponseWriter: httptest.NewRecorder(), close: cancel, done: make(chan error, 1), block: block}
	go func() { s.done <- h.serve(s, &visit{Request: r, who: who}, topic, look) }()
	return s
}

// counted is a look that says how often it was asked for.
func counted(n *atomic.Int64) func(context.Context) ([]message, error) {
	return func(context.Context) ([]message, error) {
		return []message{{data: fmt.Sprint(n.Add(1))}}, nil
	}
}

// after lets time pass, of which a bubble has plenty, and everything come to rest.
func after(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestPagesShareALook(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, _ := newTestHub(nil)
		var looks, others atomic.Int64
		a := openScreen(h, everybody, "", "overview", counted(&looks))
		synctest.Wait()
		require.Equal(t, "data: 1\n\n", a.shows(), "the first look is at once")
		b := openScreen(h, everybody, "", "overview", counted(&others))
		synctest.Wait()
		require.Equal(t, "data: 1\n\n", b.shows(), "what is known is shown at once")
		after(10*time.Second + time.Millisecond)
		require.EqualValues(t, 4, looks.Load()+others.Load(), "one look every 3 s, however many pages are open")
		require.Equal(t, a.shows(), b.shows())
		require.NoError(t, a.shut())
		after(4 * time.Second)
		require.Positive(t, others.Load(), "who is left looks")
		require.NoError(t, b.shut())
		synctest.Wait()
		total := looks.Load() + others.Load()
		after(time.Hour)
		require.Equal(t, total, looks.Load()+others.Load(), "nobody looks when no page is open")

		c := openScreen(h, everybody, "", "overview", counted(&looks))
		after(time.Second)
		require.Equal(t, total+1, looks.Load()+others.Load(), "and it begins anew")
		require.NoError(t, c.shut())
	})
}

func TestTopicsAreKeptApart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, _ := newTestHub(nil)
		acme, other, none := "acme", "other", ""
		principals := []*admin.Principal{
			everybody, {Scopes: admin.Scopes, Tenant: &acme}, {Scopes: admin.Scopes, Tenant: &other}, {Scopes: admin.Scopes, Tenant: &none},
			{Scopes: []admin.Scope{admin.ScopeRead}, Tenant: &acme}, {Scopes: []admin.Scope{admin.ScopeRead}},
		}
		var screens []*screen
		for i, who := range principals {
			screens = append(screens, openScreen(h, who, "", "overview", func(context.Context) ([]message, error) {
				return []message{{data: fmt.Sprint("for ", i)}}, nil
			}))
		}
		after(time.Minute)
		for i, s := range screens {
			require.Equal(t, fmt.Sprintf("data: for %d\n\n", i), s.shows(), "what did not change is sent once")
			require.NoError(t, s.shut())
		}
	})
}

func TestAllTopicsTogetherAreLookedAtSeldom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const topics = 100
		h, _ := newTestHub(nil)
		var (
			mu    sync.Mutex
			times []time.Time
		)
		counts := make([]atomic.Int64, topics)
		var screens []*screen
		for i := range topics {
			screens = append(screens, openScreen(h, everybody, "", fmt.Sprint(i), func(ctx context.Context) ([]message, error) {
				mu.Lock()
				times = append(times, time.Now())
				mu.Unlock()
				return counted(&counts[i])(ctx)
			}))
		}
		after(2*topics*lookSpacing + lookSpacing/2) // until all had their first
		for i := range counts {
			require.Positive(t, counts[i].Swap(0), "topic %d", i)
		}
		after(10 * topics * lookSpacing)
		require.InDelta(t, 12*topics, len(times), 2)
		for i := 1; i < len(times); i++ {
			require.GreaterOrEqual(t, times[i].Sub(times[i-1]), lookSpacing)
		}
		for i := range counts {
			require.InDelta(t, 10, counts[i].Load(), 1, "topic %d has its turn", i)
		}
		var late atomic.Int64
		newest := openScreen(h, everybody, "", "late", counted(&late))
		after(3 * lookSpacing)
		require.Positive(t, late.Load(), "a new page does not wait for all others")
		for _, s := range append(screens, newest) {
			require.NoError(t, s.shut())
		}
	})
}

// Where there is so much to count that a look takes long, pages are less live and the database is left alone.
func TestLooksThatTakeLongAreMadeLess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, _ := newTestHub(nil)
		var looks atomic.Int64
		slow := func(ctx context.Context) ([]message, error) {
			<-time.After(200 * time.Millisecond)
			return counted(&looks)(ctx)
		}
		a := openScreen(h, everybody, "", "a", slow)
		b := openScreen(h, everybody, "", "b", slow)
		after(59 * time.Second)
		require.EqualValues(t, 12, looks.Load(), "one in 5 s, of all topics together")
		require.NoError(t, a.shut())
		require.NoError(t, b.shut())
	})
}

func TestOnlyWhatChangedIsSent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, _ := newTestHub(nil)
		n := 0
		s := openScreen(h, everybody, "", "x", func(context.Context) ([]message, error) {
			n++
			return []message{{data: "<p>a\r\nb\rc</p>"}, {name: "pulse", data: fmt.Sprint(n / 2)}}, nil
		})
		after(5 * time.Second)
		require.Equal(t, "data: <p>a\ndata: b\ndata: c</p>\n\nevent: pulse\ndata: 0\n\nevent: pulse\ndata: 1\n\n", s.shows())
		require.NoError(t, s.shut())
	})
}

func TestKeepAlive(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, _ := newTestHub(nil)
		s := openScreen(h, everybody, "", "x", func(context.Context) ([]message, error) { return []message{{data: "x"}}, nil })
		after(time.Minute + time.Second)
		require.Equal(t, 1+4, strings.Count(s.body.String(), ":\n\n"))
		require.NoError(t, s.shut())
	})
}

func TestSlowPagesGetTheNewest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, _ := newTestHub(nil)
		var looks atomic.Int64
		slow := make(chan struct{}, 1)
		slow <- struct{}{} // takes the greeting
		a := openBlocked(h, everybody, "", "x", slow, counted(&looks))
		b := openScreen(h, everybody, "", "x", counted(&looks))
		after(11 * time.Second)
		require.EqualValues(t, 4, looks.Load(), "a page that hangs holds up nobody")
		require.Equal(t, 4, strings.Count(b.shows(), "data: "))
		slow <- struct{}{}
		slow <- struct{}{}
		synctest.Wait()
		require.Equal(t, "data: 1\n\ndata: 4\n\n", a.shows())
		close(slow)
		require.NoError(t, a.shut())
		require.NoError(t, b.shut())
	})
}

func TestRevokedTokensEndTheirPages(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var checks atomic.Int64
		var answer atomic.Pointer[error]
		h, _ := newTestHub(func(_ context.Context, token string) error {
			checks.Add(1)
			if err := answer.Load(); err != nil && token == "one" {
				return *err
			}
			return nil
		})
		var looks atomic.Int64
		a, b := openScreen(h, everybody, "one", "x", counted(&looks)), openScreen(h, everybody, "one", "y", counted(&looks))
		c := openScreen(h, everybody, "two", "x", counted(&looks))
		after(10*time.Minute + time.Second)
		require.EqualValues(t, 20, checks.Load(), "a token is checked once a minute, however many pages it has open")
		away := errors.New("the database is away")
		answer.Store(&away)
		after(2 * time.Minute)
		require.Empty(t, a.done, "pages stay while nobody knows")
		var gone error = &admin.Error{Kind: admin.Unauthenticated}
		answer.Store(&gone)
		after(recheck)
		require.NoError(t, <-a.done)
		require.NoError(t, <-b.done)
		require.Empty(t, c.done)
		a.close()
		b.close()
		require.NoError(t, c.shut())
	})
}

func TestLooksThatFailAreTriedLess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, log := newTestHub(nil)
		var looks atomic.Int64
		var good atomic.Bool
		s := openScreen(h, everybody, "", "x", func(context.Context) ([]message, error) {
			switch n := looks.Add(1); {
			case good.Load():
				return []message{{data: "well"}}, nil
			case n%2 == 0:
				panic("s3cret")
			}
			return nil, errors.New("away")
		})
		after(10 * time.Minute)
		require.Less(t, looks.Load(), int64(50))
		require.Greater(t, looks.Load(), int64(30))
		const stale = "event: stale\ndata: true\n\n"
		require.Equal(t, stale, s.shows(), "a page says that what it shows is old, and is told so once")
		late := openScreen(h, everybody, "", "x", nil)
		synctest.Wait()
		require.Equal(t, stale, late.shows(), "also one that is opened meanwhile")
		require.NoError(t, late.shut())
		good.Store(true)
		after(lookBackoff)
		require.Equal(t, stale+"data: well\n\nevent: stale\ndata: false\n\n", s.shows())
		require.Equal(t, 2, strings.Count(log.String(), "\n"), "once that it fails, once that it works again: %s", log)
		require.NotContains(t, log.String(), "s3cret")
		require.NoError(t, s.shut())
	})
}

func TestALookThatHangsIsGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, _ := newTestHub(nil)
		a := openScreen(h, everybody, "", "hangs", func(ctx context.Context) ([]message, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		var looks atomic.Int64
		b := openScreen(h, everybody, "", "works", counted(&looks))
		after(5 * time.Minute)
		require.Greater(t, looks.Load(), int64(50))
		require.NoError(t, b.shut())
		require.NoError(t, a.shut(), "and ends with the last page")
	})
}

func TestPagesAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h, _ := newTestHub(nil)
		var looks atomic.Int64
		var screens []*screen
		for range maxPages {
			screens = append(screens, openScreen(h, everybody, "", "x", counted(&looks)))
		}
		synctest.Wait()
		err := openScreen(h, everybody, "", "x", counted(&looks)).shut()
		var page *pageError
		require.ErrorAs(t, err, &page)
		require.Equal(t, http.StatusServiceUnavailable, page.status)
		require.NoError(t, screens[0].shut())
		again := openScreen(h, everybody, "", "x", counted(&looks))
		synctest.Wait()
		require.Empty(t, again.done)
		for _, s := range append(screens[1:], again) {
			require.NoError(t, s.shut())
		}
		synctest.Wait()
		require.Zero(t, h.pages)
		require.Empty(t, h.topics)
		require.Empty(t, h.sessions)
	})
}
