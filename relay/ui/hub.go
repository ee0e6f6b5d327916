package ui

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/walhook/walhook/relay/admin"
)

// Rhythms of the hub.
const (
	lookEvery   = 3 * time.Second  // a topic
	lookSpacing = 2 * time.Second  // between looks of all topics together, at least
	lookRests   = 25               // times as long as a look took is the time until the next: 4 % are spent looking
	lookWithin  = 10 * time.Second // a look is given up
	lookBackoff = 15 * time.Second // the longest time between looks that fail
	recheck     = time.Minute      // whether a token is still valid
)

// How many pages with live updates may be open at once: at all, and of one tenant.
const (
	maxPages         = 500
	maxPagesOfTenant = maxPages / 4
)

// hub sends server-sent events to pages that are open. All pages with the same topic (and tenant, and scopes: what is
// rendered may have buttons) share what was looked up and rendered once; a topic is looked at every few seconds while a page
// with it is open, and all topics together at most once in two seconds, however many there are. Looks that take long, because there
// is so much to count, are made less often. One goroutine does all looks, one after the other, in turns between tenants; it lives while a page is open.
type hub struct {
	check func(context.Context, string) error // whether a token is still valid
	log   zerolog.Logger

	mu       sync.Mutex
	topics   map[topicKey]*topic
	sessions map[string]*session    // by token
	turns    map[audience]time.Time // when each had its last look
	pages    int
	failing  int                // topics whose last look failed
	last     time.Time          // when the last look began
	rest     time.Duration      // from then until the next
	first    bool               // that was the first of its topic
	wake     chan struct{}      // a page was opened
	stop     context.CancelFunc // ends the goroutine
}

func newHub(check func(context.Context, string) error, log zerolog.Logger) *hub {
	return &hub{check: check, log: log, topics: map[topicKey]*topic{}, turns: map[audience]time.Time{}, sessions: map[string]*session{}, wake: make(chan struct{}, 1)}
}

// topicKey tells apart what may be shown to whom.
type topicKey struct {
	name, tenant                string
	everywhere, manage, publish bool
}

// audience are those who are shown the same rows.
type audience struct {
	tenant     string
	everywhere bool
}

func (k topicKey) audience() audience { return audience{k.tenant, k.everywhere} }

// topic is what some open pages show. Its look is always that of the page opened first: what it keeps is of use.
type topic struct {
	key      topicKey
	pages    []*livePage
	latest   []message
	due      time.Time
	looked   bool
	failures int
}

// session is a token that pages are open with.
type session struct {
	pages []*livePage
	due   time.Time // of the next check
}

// livePage is one that is open.
type livePage struct {
	topic *topic
	token string
	look  func(context.Context) ([]message, error)
	news  chan struct{} // the topic's latest messages are others
	sent  []message     // the last, of the goroutine that serves
	stale bool          // it was told so, of that goroutine as well
	ended chan struct{} // closed when the token is valid no longer
}

// message is a server-sent event. Without a name its data are HTML that htmx swaps into the element that connected
// (hx-sse:connect, hx-target, hx-swap); with a name it becomes a DOM event of that element, with the data as text.
type message struct{ name, data string }

// serve sends what look returns to one page, at once and whenever it has changed, until the page is closed. look is called
// with a context of the hub's; it may be the look of another page with the same topic and tenant.
func (h *hub) serve(w http.ResponseWriter, v *visit, topic string, look func(context.Context) ([]message, error)) error {
	p, err := h.open(v, topic, look)
	if err != nil {
		return err
	}
	defer h.close(p)
	p.stream(v.Context(), w, h)
	return nil
}

func (h *hub) open(v *visit, name string, look func(context.Context) ([]message, error)) (*livePage, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := keyOf(v, name)
	if h.pages >= maxPages || !key.everywhere && h.pagesOf(key.audience()) >= maxPagesOfTenant {
		return nil, &pageError{http.StatusServiceUnavailable, text("error.503.pages")}
	}
	p := &livePage{look: look, news: make(chan struct{}, 1), ended: make(chan struct{})}
	p.token, _ = tokenOf(v.Request)
	h.pages++
	h.join(p, key)
	if h.pages == 1 {
		ctx, cancel := context.WithCancel(context.WithoutCancel(v.Context()))
		h.stop = cancel
		go h.run(ctx)
	}
	signal(h.wake)
	return p, nil
}

func (h *hub) pagesOf(a audience) (n int) {
	for key, t := range h.topics {
		if key.audience() == a {
			n += len(t.pages)
		}
	}
	return n
}

func keyOf(v *visit, name string) topicKey {
	k := topicKey{name: name, everywhere: v.who.Everywhere(), manage: v.who.May(admin.ScopeManage), publish: v.who.May(admin.ScopePublish)}
	if !k.everywhere {
		k.tenant = *v.who.Tenant
	}
	return k
}

func (h *hub) join(p *livePage, key topicKey) {
	now := time.Now()
	t := h.topics[key]
	if t == nil {
		t = &topic{key: key, due: now}
		h.topics[key] = t
	}
	t.pages = append(t.pages, p)
	p.topic = t
	if t.latest != nil || t.failures > 0 {
		signal(p.news)
	}
	if p.token == "" {
		return
	}
	s := h.sessions[p.token]
	if s == nil {
		s = &session{due: now.Add(recheck)}
		h.sessions[p.token] = s
	}
	s.pages = append(s.pages, p)
}

func (h *hub) close(p *livePage) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := p.topic
	if t.pages = without(t.pages, p); len(t.pages) == 0 {
		delete(h.topics, t.key)
		if t.failures > 0 {
			h.failing--
		}
	}
	if s := h.sessions[p.token]; s != nil {
		if s.pages = without(s.pages, p); len(s.pages) == 0 {
			delete(h.sessions, p.token)
		}
	}
	if h.pages--; h.pages == 0 {
		clear(h.turns)
		h.stop()
	}
}

func without(pages []*livePage, p *livePage) []*livePage {
	return slices.DeleteFunc(pages, func(other *livePage) bool { return other == p })
}

// unsent returns what a page has not sent yet: of messages that are as they were, none. A page whose topic cannot be looked
// at hears of it once, in a message named stale: what it shows would pass for the present.
func (h *hub) unsent(p *livePage) []message {
	h.mu.Lock()
	latest, stale := p.topic.latest, p.topic.failures > 0
	h.mu.Unlock()
	var out []message
	for i, m := range latest {
		if i >= len(p.sent) || p.sent[i] != m {
			out = append(out, m)
		}
	}
	p.sent = latest
	if stale != p.stale {
		p.stale = stale
		out = append(out, message{name: "stale", data: strconv.FormatBool(stale)})
	}
	return out
}

// signal wakes who waits for a channel of length 1, now or the next time.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
