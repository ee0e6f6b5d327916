package webhook

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/walhook/walhook/internal/fault"
	"github.com/walhook/walhook/relay/delivery"
)

// defaultTimeout is that of an attempt whose settings name none.
const defaultTimeout = 30 * time.Second

// attemptTimeout is the cause with which an attempt's context ends when its time is up.
type attemptTimeout time.Duration

func (t attemptTimeout) Error() string { return "no answer within " + time.Duration(t).String() }

// Send makes one attempt for all deliveries of batch, number d.Attempts+1 of each, and waits for what comes of
// it, at most set.Timeout (30 s when that is not positive). It never fails: whatever goes wrong is an Outcome,
// which is that of every delivery in the batch. batch has at least one delivery; their order is that of the
// request's array, and a batch that is sent again in the same order has the same X-Webhook-ID.
//
// An answer of 200-299 is a success as soon as its status line and headers are there, even when its body
// breaks off. When ctx ends before the attempt does, the reason is ReasonStopped. Neither Body nor Error
// ever holds a secret of the subscription or its URL's query.
func (s *Sender) Send(ctx context.Context, batch []*delivery.Delivery, set *delivery.Settings) delivery.Outcome {
	out := delivery.Outcome{StartedAt: time.Now()}
	e := s.endpoints.get(set)
	if e.err != nil {
		out.Reason, out.Error = delivery.ReasonSettings, e.tell(strings.ReplaceAll(e.err.Error(), "\n", "; "))
		return out
	}
	attemptCtx, cancel := withTimeout(ctx, set)
	defer cancel()
	s.attempt(attemptCtx, cancel, batch, e, &out)
	out.Duration = time.Since(out.StartedAt)
	return out
}

// withTimeout bounds an attempt as a whole.
func withTimeout(ctx context.Context, set *delivery.Settings) (context.Context, context.CancelFunc) {
	timeout := set.Timeout
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	return context.WithTimeoutCause(ctx, timeout, attemptTimeout(timeout))
}

// attempt builds, signs and posts the request and fills out.
func (s *Sender) attempt(ctx context.Context, cancel func(), batch []*delivery.Delivery, e *endpoint, out *delivery.Outcome) {
	m := e.message(batch, out.StartedAt)
	h := s.header(e, &m)
	if s.tracer == nil {
		s.exchange(ctx, cancel, e, h, m.body, out)
		return
	}
	span := s.startSpan(ctx, e, m, batch, h)
	s.exchange(ctx, cancel, e, h, m.body, out)
	endSpan(span, out)
}

// exchange posts the request and takes the answer.
func (s *Sender) exchange(ctx context.Context, cancel func(), e *endpoint, h http.Header, body []byte, out *delivery.Outcome) {
	resp, err := s.do(ctx, e, http.MethodPost, h, body)
	if err != nil {
		out.Reason, out.Error = e.explain(ctx, err)
		return
	}
	fault.Point(fault.WebhookAnswered)
	defer func() { _ = resp.Body.Close() }()
	out.Status, out.Gone = resp.StatusCode, resp.StatusCode == http.StatusGone
	out.Reason, out.Error = judge(resp, e)
	out.RetryAfter = retryAfterOf(resp, time.Now())
	out.Body = s.readBody(resp, cancel, e)
}

// errNeverSent is an established connection that ended before the request was written to it.
var errNeverSent = errors.New("the server closed the connection before the request was sent")

// do sends the request, once. The second round of the loop is the gap that the package comment describes:
// it is entered only when the transport never read a byte of the body.
func (s *Sender) do(ctx context.Context, e *endpoint, method string, h http.Header, body []byte) (*http.Response, error) {
	for again := false; ; again = true {
		req := e.request.WithContext(ctx)
		req.Method, req.Header = method, h
		reader := bytes.NewReader(body)
		if len(body) > 0 {
			req.ContentLength = int64(len(body))
			req.Body = io.NopCloser(reader)
			req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		}
		// The struct is made directly, because the constructors read the whole body into a buffer of their own.
		resp, err := s.client.Do(&retryablehttp.Request{Request: req})
		if err == nil || !neverSent(ctx, err, reader) {
			return resp, err
		}
		if again {
			return nil, errNeverSent
		}
		s.log.Debug().Stringer("subscription", e.from.SubscriptionID).
			Msg("an idle connection closed before the request was sent; using another")
	}
}

// neverSent reports that an established connection failed before the request was written to it: the body
// was not even begun. The transport has stopped reading it when it gives an error back for any other reason
// than an ended context (mapRoundTripError in transport.go waits for that).
func neverSent(ctx context.Context, err error, body *bytes.Reader) bool {
	var dial *dialError
	var handshake *handshakeError
	return ctx.Err() == nil && !errors.As(err, &dial) && !errors.As(err, &handshake) &&
		body.Size() > 0 && int64(body.Len()) == body.Size()
}

// judge says what a response's status means.
func judge(resp *http.Response, e *endpoint) (delivery.Reason, string) {
	code := resp.StatusCode
	switch {
	case code >= 200 && code <= 299:
		return delivery.ReasonNone, ""
	case code >= 500 && fault.Bug(fault.FailureTakenForSuccess):
		return delivery.ReasonNone, ""
	case code >= 300 && code <= 399:
		return delivery.ReasonRedirect, e.tell(redirectText(resp))
	}
	return delivery.ReasonStatus, statusText(code)
}

// statusText is "HTTP 404 Not Found", with the phrase from the standard: a server may write anything there.
func statusText(code int) string {
	text := "HTTP " + strconv.Itoa(code)
	if phrase := http.StatusText(code); phrase != "" {
		text += " " + phrase
	}
	return text
}

// redirectText names the host of a redirect and no more of it, because a Location may hold secrets.
func redirectText(resp *http.Response) string {
	text := statusText(resp.StatusCode)
	location := resp.Header[locationKey]
	if len(location) == 0 {
		return text + ": redirects are not followed"
	}
	u, err := resp.Request.URL.Parse(location[0])
	if err != nil || u.Hostname() == "" {
		return text + ": redirects are not followed, and its Location is not valid"
	}
	return text + ": redirects are not followed; its Location is on " + u.Hostname()
}
