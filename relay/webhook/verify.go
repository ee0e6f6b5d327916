package webhook

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/tidwall/gjson"

	"github.com/walhook/walhook/relay/delivery"
)

// Verified is what a handshake brought.
type Verified struct {
	AllowedRate int // requests per minute that the receiver permits; 0: it named no limit
}

// Verify performs the handshake that set.Verification asks for, in one request, and waits for its end, at most
// set.Timeout (30 s when that is not positive). Nothing is asked of a receiver that needs no handshake. The
// error says for people what is missing and never holds a secret; when ctx ended first, it wraps its cause.
func (s *Sender) Verify(ctx context.Context, set *delivery.Settings) (Verified, error) {
	e := s.endpoints.get(set)
	if e.err != nil {
		return Verified{}, errors.New(e.tell(strings.ReplaceAll(e.err.Error(), "\n", "; ")))
	}
	ctx, cancel := withTimeout(ctx, set)
	defer cancel()
	switch set.Verification {
	case delivery.VerifyCloudEvents:
		return s.askPermission(ctx, e, set.RateLimit)
	case delivery.VerifySlack:
		return Verified{}, s.challenge(ctx, e)
	}
	return Verified{}, nil
}

func checkVerification(v delivery.Verification) error {
	switch v {
	case "", delivery.VerifyNone, delivery.VerifyCloudEvents, delivery.VerifySlack:
		return nil
	}
	return errors.New("verification " + strconv.Quote(string(v)) + " is not known: use none, cloudevents or slack")
}

// The headers of the CloudEvents handshake beside headerOrigin, in canonical form.
const (
	headerRate          = "Webhook-Request-Rate"
	headerAllowedOrigin = "Webhook-Allowed-Origin"
	headerAllowedRate   = "Webhook-Allowed-Rate"
)

// askPermission sends the validation request (CloudEvents HTTP 1.1 Web Hooks for Event Delivery 1.0.2, section
// 4.1) for rate requests a second, if that is positive. It carries the subscription's own headers, which may
// be what lets a request in at all.
func (s *Sender) askPermission(ctx context.Context, e *endpoint, rate int) (Verified, error) {
	h := e.headers.Clone()
	h["User-Agent"] = s.userAgent
	h[headerOrigin] = s.origin
	if rate > 0 {
		h[headerRate] = []string{strconv.Itoa(rate * 60)}
	}
	resp, err := s.do(ctx, e, http.MethodOptions, h, nil)
	if err != nil {
		return Verified{}, e.noAnswer(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }()
	v, reason := permission(resp.Header, s.origin[0])
	if reason != "" {
		return Verified{}, errors.New(e.tell("OPTIONS was answered with " + statusText(resp.StatusCode) + " and " + reason))
	}
	return v, nil
}

// permission reads the answer to a validation request (section 4.2), and says why it is none. Its status means
// nothing: a server that answers OPTIONS for other purposes has not consented, and the specification wants no
// certain status of one that does.
func permission(h http.Header, origin string) (v Verified, reason string) {
	wanted := ": answer it with WebHook-Allowed-Origin: " + origin
	allowed := h[headerAllowedOrigin]
	if len(allowed) == 0 {
		return v, "no WebHook-Allowed-Origin" + wanted
	}
	if a := strings.TrimSpace(allowed[0]); a != "*" && !strings.EqualFold(a, origin) {
		return v, "WebHook-Allowed-Origin " + strconv.Quote(a) + wanted
	}
	if rate := h[headerAllowedRate]; len(rate) > 0 {
		v.AllowedRate = allowedRate(rate[0])
	}
	return v, ""
}

// allowedRate reads a rate, in requests per minute; 0 means that there is no limit. An asterisk says so, and
// what is no number is taken for it, because a receiver that gets more than it wants answers 429.
func allowedRate(text string) int {
	text = strings.TrimSpace(text)
	rate, err := strconv.ParseInt(text, 10, 32)
	if err != nil || !isDigits(text) {
		return 0
	}
	return int(rate)
}

// maxChallengeAnswer is how much of the answer to a challenge is read, in bytes.
const maxChallengeAnswer = 4 << 10

// challenge sends a challenge and reads its answer (Slack, "Using the Request URL for direct HTTP delivery",
// url_verification). The request is signed like every other one of the subscription.
func (s *Sender) challenge(ctx context.Context, e *endpoint) error {
	text := rand.Text()
	m := message{
		id: idText(uuid.New()), event: "url_verification", attempt: 1, at: time.Now(), contentType: typeJSON,
		body: []byte(`{"type":"url_verification","token":"","challenge":"` + text + `"}`),
	}
	resp, err := s.do(ctx, e, http.MethodPost, s.header(e, &m), m.body)
	if err != nil {
		return e.noAnswer(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		_, reason := judge(resp, e)
		if reason == "" {
			reason = statusText(resp.StatusCode)
		}
		return errors.New("the challenge was answered with " + reason + ": answer it with 200 and the challenge")
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxChallengeAnswer))
	if err != nil && ctx.Err() != nil {
		return e.noAnswer(ctx, err)
	}
	if !answersChallenge(body, text) {
		return errors.New("the answer to the challenge is not the challenge: answer with its text, as text, as JSON {\"challenge\": …} or as the form challenge=…")
	}
	return nil
}

// answersChallenge reports whether body is the challenge, in one of the three forms that Slack takes. The
// Content-Type is not looked at: many receivers get it wrong, and no form can be taken for another.
func answersChallenge(body []byte, challenge string) bool {
	text := strings.TrimSpace(string(body))
	if text == challenge {
		return true
	}
	if gjson.Valid(text) {
		return gjson.Get(text, "challenge").Str == challenge // empty for what is no string
	}
	form, err := url.ParseQuery(text)
	return err == nil && form.Get("challenge") == challenge
}

// noAnswer says why a handshake had no answer.
func (e *endpoint) noAnswer(ctx context.Context, err error) error {
	reason, text := e.explain(ctx, err)
	if reason == delivery.ReasonStopped {
		return fmt.Errorf("%s: %w", text, context.Cause(ctx))
	}
	return errors.New(text)
}
