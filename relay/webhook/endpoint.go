package webhook

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/walhook/walhook/relay/delivery"
)

// maxEndpoints bounds the cache of compiled settings; an entry takes about a kilobyte.
const maxEndpoints = 8192

// endpoint is what a subscription's settings amount to, worked out once.
type endpoint struct {
	from    *delivery.Settings // a copy
	err     error              // why no request can be made; what is below is not to be used then
	request *http.Request      // method and URL; copied for each request
	headers http.Header        // the subscription's own; shared between requests, never changed
	format  *format
	scheme  *scheme
	keys    keys
	hidden  []string // what must not show up in an Outcome
}

// Check says why no request can be made with these settings; nil when one can. Its error names what is wrong
// and the remedy, never a secret.
func Check(set *delivery.Settings) error { return compile(set).err }

// compile works settings out. It never fails: what is wrong with them is kept in err.
func compile(set *delivery.Settings) *endpoint {
	own := *set
	own.Headers = slices.Clone(set.Headers)
	e := &endpoint{from: &own, hidden: hiddenIn(set)}
	var errs [5]error
	var target *url.URL
	target, errs[0] = parseURL(set.URL)
	e.headers, errs[1] = buildHeaders(set.Headers)
	e.format, errs[2] = formatOf(set)
	e.scheme, errs[3] = schemeOf(set.Signature)
	if errs[3] == nil && e.scheme.key != nil {
		e.keys, errs[3] = newKeys(set, e.scheme, time.Now())
	}
	errs[4] = checkVerification(set.Verification)
	if e.err = errors.Join(errs[:]...); e.err != nil {
		return e
	}
	e.request = &http.Request{
		Method: http.MethodPost, URL: target, Host: target.Host,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	return e
}

// parseURL accepts what a request can be sent to. Its errors never quote the URL, whose user information and
// query may hold secrets; parts that cannot are named.
func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, errors.New("url cannot be parsed: look for spaces, control characters, a bad port or a bad %-escape")
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("url has the scheme " + strconv.Quote(u.Scheme) + ": use http or https")
	}
	if u.Hostname() == "" {
		return nil, errors.New("url names no host: write it as https://host/path")
	}
	if u.User != nil {
		return nil, errors.New("url carries user information: send credentials in an Authorization header instead")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return nil, errors.New("url has the port " + strconv.Quote(port) + ": use 1 to 65535")
		}
	}
	u.Host = strings.TrimSuffix(u.Host, ":")
	u.Fragment, u.RawFragment = "", ""
	return u, nil
}

// same reports whether e was compiled from these settings. The revision alone would do for rows that come
// from SQL; the rest keeps settings that were made by hand from being sent to another one's address.
func (e *endpoint) same(set *delivery.Settings) bool {
	f := e.from
	return f.Revision == set.Revision && f.URL == set.URL &&
		f.Secret == set.Secret && f.PreviousSecret == set.PreviousSecret &&
		f.PreviousSecretExpiresAt.Equal(set.PreviousSecretExpiresAt) &&
		f.Signature == set.Signature && f.Verification == set.Verification && f.BatchSize == set.BatchSize &&
		f.PayloadFormat == set.PayloadFormat && f.PayloadVersion == set.PayloadVersion &&
		slices.Equal(f.Headers, set.Headers)
}

// endpoints caches compiled settings by subscription, the newest revision seen of each.
type endpoints struct {
	limit int
	mu    sync.RWMutex
	of    map[uuid.UUID]*endpoint
}

func newEndpoints(limit int) *endpoints {
	return &endpoints{limit: limit, of: make(map[uuid.UUID]*endpoint)}
}

// get returns the endpoint of set.
func (c *endpoints) get(set *delivery.Settings) *endpoint {
	c.mu.RLock()
	e := c.of[set.SubscriptionID]
	c.mu.RUnlock()
	if e != nil && e.same(set) {
		return e
	}
	e = compile(set)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.makeRoom()
	c.of[set.SubscriptionID] = e
	return e
}

// makeRoom drops an arbitrary eighth when the cache is full. Which ones matters little: compiling one again
// costs microseconds, a tenth of the request that follows.
func (c *endpoints) makeRoom() {
	if len(c.of) < c.limit {
		return
	}
	drop := max(c.limit/8, 1)
	for id := range c.of {
		delete(c.of, id)
		if drop--; drop == 0 {
			return
		}
	}
}
