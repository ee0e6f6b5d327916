package receiver

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Scheme is a way of signing, by the name that a subscription's signature has.
type Scheme string

// The schemes.
const (
	// SHA256 is walhook's default: X-Webhook-Signature: sha256=<hex>.
	SHA256 Scheme = "sha256"
	// Standard is Standard Webhooks (https://www.standardwebhooks.com), v1 with shared secrets and v1a with
	// public keys: webhook-id, webhook-timestamp, webhook-signature.
	Standard Scheme = "standard"
	// StandardEd25519 is Standard with nothing but public keys.
	StandardEd25519 Scheme = "standard-ed25519"
	// GitHub is X-Hub-Signature-256: sha256=<hex>.
	GitHub Scheme = "github"
	// SHA1 is what GitHub sent before: X-Hub-Signature: sha1=<hex>.
	SHA1 Scheme = "sha1"
	// Stripe is Stripe-Signature: t=<seconds>,v1=<hex>.
	Stripe Scheme = "stripe"
	// Shopify is X-Shopify-Hmac-Sha256: <base64>.
	Shopify Scheme = "shopify"
	// Slack is X-Slack-Signature: v0=<hex> with X-Slack-Request-Timestamp.
	Slack Scheme = "slack"
	// None accepts everything: for requests that are vouched for in another way, such as by mutual TLS.
	None Scheme = "none"
)

// The versions of Standard Webhooks' signatures. All other schemes have one, without a name here.
const (
	versionHMAC    = "v1"
	versionEd25519 = "v1a"
)

// maxSignatures bounds how many signatures of one request are compared; a sender with as many secrets at once
// does not exist.
const maxSignatures = 16

// scheme is where a scheme's signature stands and how it is read.
type scheme struct {
	header  string
	version string // of signatures with a shared secret
	read    func(http.Header) (claim, error)
}

var schemes = map[Scheme]scheme{
	SHA256:          {header: "X-Webhook-Signature", read: listed("X-Webhook-Signature", "sha256=", hex.DecodeString)},
	Standard:        {header: "Webhook-Signature", version: versionHMAC, read: readStandard},
	StandardEd25519: {header: "Webhook-Signature", read: readStandard},
	GitHub:          {header: "X-Hub-Signature-256", read: listed("X-Hub-Signature-256", "sha256=", hex.DecodeString)},
	SHA1:            {header: "X-Hub-Signature", read: listed("X-Hub-Signature", "sha1=", hex.DecodeString)},
	Stripe:          {header: "Stripe-Signature", read: readStripe},
	Shopify:         {header: "X-Shopify-Hmac-Sha256", read: listed("X-Shopify-Hmac-Sha256", "", base64.StdEncoding.DecodeString)},
	Slack:           {header: "X-Slack-Signature", read: readSlack},
	None:            {},
}

// recognised is the order in which SchemeOf looks: the stronger of two that come together is found first.
var recognised = []Scheme{SHA256, Standard, GitHub, SHA1, Stripe, Shopify, Slack}

// Schemes lists all schemes but None.
func Schemes() []Scheme { return append(slices.Clone(recognised), StandardEd25519) }

// SchemeOf tells by its headers how a request is signed; None when it is not. It is for tools that look at
// whatever comes: a receiver that means to be safe names its scheme, and does not let the sender choose.
func SchemeOf(header http.Header) Scheme {
	for _, s := range recognised {
		if schemes[s].signs(header) {
			return s
		}
	}
	return None
}

func (s scheme) signs(h http.Header) bool { return strings.Join(h.Values(s.header), "") != "" }

// claim is what a request says about its signature.
type claim struct {
	prefix     string // signed in front of the body
	signatures []signature
	at         time.Time
	timed      bool // the scheme has a timestamp
}

type signature struct {
	version string
	sum     []byte
}

// listed reads the values of a header, separated by commas while a secret is being rotated. What cannot be read
// is passed over: it may have been made for somebody else.
func listed(header, prefix string, decode func(string) ([]byte, error)) func(http.Header) (claim, error) {
	return func(h http.Header) (claim, error) {
		var c claim
		for value := range strings.SplitSeq(strings.Join(h.Values(header), ","), ",") {
			text, ok := strings.CutPrefix(strings.TrimSpace(value), prefix)
			if sum, err := decode(text); ok && err == nil {
				c.signatures = append(c.signatures, signature{sum: sum})
			}
		}
		return c, nil
	}
}

// readStandard follows the Standard Webhooks specification: id.timestamp.body is signed, and the signatures are
// separated by spaces.
func readStandard(h http.Header) (claim, error) {
	id, at := h.Get("Webhook-Id"), h.Get("Webhook-Timestamp")
	if id == "" {
		return claim{}, fmt.Errorf("%w: the request has no webhook-id header", ErrMissing)
	}
	c, err := timed("webhook-timestamp", at)
	c.prefix = id + "." + at + "."
	for value := range strings.FieldsSeq(strings.Join(h.Values("Webhook-Signature"), " ")) {
		version, text, _ := strings.Cut(value, ",")
		if sum, err := base64.StdEncoding.DecodeString(text); err == nil {
			c.signatures = append(c.signatures, signature{version, sum})
		}
	}
	return c, err
}

// readStripe follows https://docs.stripe.com/webhooks#verify-manually: t.body is signed; schemes other than v1
// are ignored, so that nobody can choose a weaker one.
func readStripe(h http.Header) (claim, error) {
	at, sums := "", []signature(nil)
	for part := range strings.SplitSeq(strings.Join(h.Values("Stripe-Signature"), ","), ",") {
		switch name, value, _ := strings.Cut(strings.TrimSpace(part), "="); name {
		case "t":
			at = value
		case "v1":
			if sum, err := hex.DecodeString(value); err == nil {
				sums = append(sums, signature{sum: sum})
			}
		}
	}
	c, err := timed("t in Stripe-Signature", at)
	c.prefix, c.signatures = at+".", sums
	return c, err
}

// readSlack follows https://docs.slack.dev/authentication/verifying-requests-from-slack: v0:timestamp:body is
// signed.
func readSlack(h http.Header) (claim, error) {
	at := h.Get("X-Slack-Request-Timestamp")
	c, err := timed("X-Slack-Request-Timestamp", at)
	if err != nil {
		return c, err
	}
	sums, err := listed("X-Slack-Signature", "v0=", hex.DecodeString)(h)
	c.prefix, c.signatures = "v0:"+at+":", sums.signatures
	return c, err
}

// timed begins a claim with a timestamp, in whole seconds of Unix time.
func timed(where, text string) (claim, error) {
	if text == "" {
		return claim{}, fmt.Errorf("%w: the request has no %s", ErrMissing, where)
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return claim{}, fmt.Errorf("%w: %s is no number of seconds", ErrInvalid, where)
	}
	return claim{at: time.Unix(seconds, 0), timed: true}, nil
}
