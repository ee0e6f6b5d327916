package webhook

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"strings"
)

// The signatures that this package knows.
const (
	signatureSHA256  = "sha256"
	signatureEd25519 = "standard-ed25519"
	signatureNone    = "none"
)

// scheme is one way of signing a request: which header carries what. In its patterns %i stands for the
// request's id, %t for the time of the attempt in seconds since 1970, and %e for the event's type.
type scheme struct {
	header  string // that carries the signatures, in canonical form; empty: the request is not signed
	before  string // pattern of what stands before the body in what is signed
	open    string // pattern of what stands before all signatures
	label   string // before each signature
	in      encoding
	between string // signatures
	// single: the vendor's own verifiers refuse more than one signature. While two secrets are valid they
	// take turns, the current one on odd attempts and the previous one on even attempts, so that a receiver
	// that knows either accepts within two attempts; X-Webhook-Signature then goes along with both.
	single bool
	extra  []extraHeader
	key    func(name, secret string) (*signer, error)
}

// extraHeader is one that a scheme sends beside its signature, also when there is no secret.
type extraHeader struct{ name, value string }

var schemes = map[string]*scheme{
	signatureSHA256: {header: headerSignature, label: "sha256=", between: ", ", key: plainKey},

	// Standard Webhooks 1.0.0, "Signature scheme" and "Webhook headers".
	"standard": {
		header: "Webhook-Signature", before: "%i.%t.", label: "v1,", in: inBase64, between: " ",
		extra: standardHeaders, key: standardKey,
	},
	signatureEd25519: {
		header: "Webhook-Signature", before: "%i.%t.", label: "v1a,", in: inBase64, between: " ",
		extra: standardHeaders, key: ed25519Key,
	},

	// GitHub, "Validating webhook deliveries" and "Webhook events and payloads", delivery headers.
	"github": {
		header: "X-Hub-Signature-256", label: "sha256=", single: true, key: plainKey,
		extra: []extraHeader{{"X-Github-Event", "%e"}, {"X-Github-Delivery", "%i"}},
	},
	// Stripe, "Verify webhook signatures manually". Its verifiers take any number of v1 signatures.
	"stripe": {
		header: "Stripe-Signature", before: "%t.", open: "t=%t,", label: "v1=", between: ",", key: plainKey,
	},
	// Shopify, "Verify webhook deliveries". Its own verifier wants a shop and a version of the API to be named.
	"shopify": {
		header: "X-Shopify-Hmac-Sha256", in: inBase64, single: true, key: plainKey,
		extra: []extraHeader{{"X-Shopify-Topic", "%e"}, {"X-Shopify-Webhook-Id", "%i"}, {"X-Shopify-Shop-Domain", "walhook"}, {"X-Shopify-Api-Version", "1"}},
	},
	// Slack, "Verifying requests from Slack".
	"slack": {
		header: "X-Slack-Signature", before: "v0:%t:", label: "v0=", single: true, key: plainKey,
		extra: []extraHeader{{"X-Slack-Request-Timestamp", "%t"}},
	},
	signatureNone: {},
}

var standardHeaders = []extraHeader{{"Webhook-Id", "%i"}, {"Webhook-Timestamp", "%t"}}

// schemeOf returns the scheme of that name; no name means sha256.
func schemeOf(signature string) (*scheme, error) {
	if signature == "" {
		signature = signatureSHA256
	}
	if s := schemes[signature]; s != nil {
		return s, nil
	}
	return nil, errors.New("signature " + strconv.Quote(signature) +
		" is not known: use sha256, standard, standard-ed25519, github, stripe, shopify, slack or none")
}

// sign returns the value of the scheme's header, and that of X-Webhook-Signature when it goes along. Both are
// empty when no secret is valid.
func (s *scheme) sign(m *message, k *keys) (value, along string) {
	list, n := k.valid(m.at)
	switch {
	case s.header == "" || n == 0:
		return "", ""
	case s.single && n > 1:
		turn := (m.attempt + 1) % 2
		return s.value(m, list[turn:turn+1]), schemes[signatureSHA256].value(m, list[:n])
	}
	return s.value(m, list[:n]), ""
}

// value returns the header's value with a signature of each signer.
func (s *scheme) value(m *message, signers []*signer) string {
	var room [256]byte // enough for two of any scheme
	prefix := m.expand(nil, s.before)
	out := m.expand(room[:0], s.open)
	for i, k := range signers {
		if i > 0 {
			out = append(out, s.between...)
		}
		out = append(out, s.label...)
		out = k.append(out, prefix, m.body, s.in)
	}
	return string(out)
}

// addExtra adds what the scheme sends beside its signature.
func (s *scheme) addExtra(h http.Header, m *message) {
	for _, extra := range s.extra {
		h[extra.name] = []string{string(m.expand(nil, extra.value))}
	}
}

// plainKey keys HMAC with the secret's bytes as they are.
func plainKey(_, secret string) (*signer, error) { return newSigner([]byte(secret)), nil }

// The sizes of a symmetric key, in bytes. Standard Webhooks 1.0.0 (table in "Signature scheme") asks for 24 at
// least, but the secret of its own published test vector has 18: what verifiers take is not refused.
const (
	minStandardKey = 16
	maxStandardKey = 64
)

// standardKey reads a symmetric secret of Standard Webhooks: base64 behind whsec_, which may be missing.
// Errors name the field and never quote it.
func standardKey(field, secret string) (*signer, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, prefixSymmetric))
	if err != nil {
		return nil, errors.New(field + " is not base64, which the signature standard wants: use " + prefixSymmetric +
			" and the base64 of 24 to 64 random bytes")
	}
	if len(key) < minStandardKey || len(key) > maxStandardKey {
		return nil, errors.New(field + " has " + strconv.Itoa(len(key)) + " bytes behind its base64, and the signature standard wants 16 to 64 (24 and more are better): use " +
			prefixSymmetric + " and the base64 of that many random bytes")
	}
	return newSigner(key), nil
}

// The prefixes by which Standard Webhooks tells keys apart.
const (
	prefixSymmetric = "whsec_"
	prefixPrivate   = "whsk_"
)

// ed25519Key reads a private key of Standard Webhooks: base64 behind whsk_, which may be missing, of the
// 64-byte private key or of the 32-byte seed that it begins with (RFC 8032, section 5.1.5). Signing with a
// public half that is not the seed's would give the private key away, so it is refused.
func ed25519Key(field, secret string) (*signer, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, prefixPrivate))
	if err != nil || len(key) != ed25519.PrivateKeySize && len(key) != ed25519.SeedSize {
		return nil, errors.New(field + " is not an Ed25519 key, which the signature standard-ed25519 wants: use " + prefixPrivate +
			" and the base64 of the 64-byte private key or of its 32-byte seed")
	}
	private := ed25519.NewKeyFromSeed(key[:ed25519.SeedSize])
	if len(key) == ed25519.PrivateKeySize && !private.Equal(ed25519.PrivateKey(key)) {
		return nil, errors.New(field + " is an Ed25519 key whose public half does not belong to its private half: use the seed alone, or make a new key")
	}
	return &signer{private: private}, nil
}
