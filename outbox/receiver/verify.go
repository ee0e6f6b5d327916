package receiver

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha1" // of the scheme SHA1: as a keyed hash it still stands
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Why a request was not accepted. Errors of Verify wrap one of them.
var (
	// ErrMissing: the request has no signature of the scheme.
	ErrMissing = errors.New("signature missing")
	// ErrInvalid: the signature cannot be read, or was made with another secret or over another body.
	ErrInvalid = errors.New("signature invalid")
	// ErrExpired: the signature is right, but its timestamp is too far from now.
	ErrExpired = errors.New("signature expired")
)

// DefaultTolerance is how far a timestamp may be from now, in both directions, unless Options say otherwise. It
// is what Standard Webhooks, Stripe and Slack recommend.
const DefaultTolerance = 5 * time.Minute

// Options say how requests are signed.
type Options struct {
	// Scheme is the subscription's signature; there is no default.
	Scheme Scheme

	// Secrets are the subscription's; any of them will do, so that one can be replaced without a pause. Those of
	// Standard are base64, with or without whsec_ in front, or a public key (whpk_), which StandardEd25519
	// requires. All others are used as they are.
	Secrets []string

	// Tolerance bounds the age of a timestamp, in both directions: DefaultTolerance when zero, and no bound at
	// all when negative. SHA256, SHA1, GitHub and Shopify have no timestamp.
	Tolerance time.Duration

	// Now is the clock: time.Now when nil.
	Now func() time.Time
}

// Verifier verifies signatures. It may be used by several goroutines at once.
type Verifier struct {
	scheme    scheme
	keys      []key
	tolerance time.Duration
	now       func() time.Time
}

// NewVerifier checks the options. Its errors say which secret is of no use by its place in the list, and never
// show it.
func NewVerifier(o Options) (*Verifier, error) {
	s, known := schemes[o.Scheme]
	if !known {
		return nil, fmt.Errorf("signature scheme %q is not known: use one of %v or %s", o.Scheme, Schemes(), None)
	}
	if len(o.Secrets) == 0 && o.Scheme != None {
		return nil, fmt.Errorf("no secret for the signature scheme %s: give the subscription's", o.Scheme)
	}
	v := &Verifier{scheme: s, tolerance: o.Tolerance, now: o.Now}
	for i, secret := range o.Secrets {
		k, err := newKey(o.Scheme, secret)
		if err != nil {
			return nil, fmt.Errorf("secret %d of %d: %w", i+1, len(o.Secrets), err)
		}
		v.keys = append(v.keys, k)
	}
	if v.tolerance == 0 {
		v.tolerance = DefaultTolerance
	}
	if v.now == nil {
		v.now = time.Now
	}
	return v, nil
}

// Verify returns nil when one of the request's signatures over body is right and its timestamp, if the scheme
// has one, near enough. Its error wraps ErrMissing, ErrInvalid or ErrExpired. body is what was received, byte
// for byte: JSON that was decoded and encoded again is another body.
func (v *Verifier) Verify(header http.Header, body []byte) error {
	if v.scheme.read == nil {
		return nil // None
	}
	if !v.scheme.signs(header) {
		return fmt.Errorf("%w: the request has no %s header", ErrMissing, v.scheme.header)
	}
	c, err := v.scheme.read(header)
	if err != nil {
		return err
	}
	if len(c.signatures) > maxSignatures {
		return fmt.Errorf("%w: %d signatures in %s, the most is %d", ErrInvalid, len(c.signatures), v.scheme.header, maxSignatures)
	}
	valid := false
	for _, k := range v.keys {
		valid = k.made(c, body) || valid // every key is tried, whichever fits
	}
	if !valid {
		return fmt.Errorf("%w: %s was made with another secret or over another body", ErrInvalid, v.scheme.header)
	}
	return v.checkTime(c)
}

func (v *Verifier) checkTime(c claim) error {
	now := v.now()
	if !c.timed || v.tolerance < 0 || !c.at.Before(now.Add(-v.tolerance)) && !c.at.After(now.Add(v.tolerance)) {
		return nil
	}
	return fmt.Errorf("%w: its timestamp %d is more than %s from now: look at both clocks", ErrExpired, c.at.Unix(), v.tolerance)
}

// key is one secret in the form in which it is used.
type key struct {
	version string // of the signatures that it can have made
	hash    func() hash.Hash
	secret  []byte
	public  ed25519.PublicKey // instead of hash and secret
}

// newKey reads a secret. What is known to be no shared secret is never used as one: everybody may know a public
// key, and could sign with it.
func newKey(s Scheme, secret string) (key, error) {
	k := key{version: schemes[s].version, hash: sha256.New, secret: []byte(secret)}
	encoded, public := strings.CutPrefix(secret, "whpk_")
	standard := s == Standard || s == StandardEd25519
	switch {
	case secret == "":
		return key{}, errors.New("it is empty: give the subscription's")
	case strings.HasPrefix(secret, "whsk_"):
		return key{}, errors.New("it is a private key (whsk_), which only the sender should have: give the public key (whpk_)")
	case public && !standard:
		return key{}, fmt.Errorf("it is a public key (whpk_), and the scheme %s has shared secrets: use %s", s, StandardEd25519)
	case !public && s == StandardEd25519:
		return key{}, errors.New("it is no public key: give the one that begins with whpk_")
	case public:
		sum, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil || len(sum) != ed25519.PublicKeySize {
			return key{}, errors.New("what follows whpk_ is not 32 bytes in base64: copy the public key again")
		}
		return key{version: versionEd25519, public: sum}, nil
	case standard:
		var err error
		if k.secret, err = base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_")); err != nil || len(k.secret) == 0 {
			return key{}, errors.New("it is not base64 (with or without whsec_ in front): copy the secret again")
		}
	case s == SHA1:
		k.hash = sha1.New
	}
	return k, nil
}

// made reports whether the key made one of the claim's signatures. Each is compared in constant time.
func (k key) made(c claim, body []byte) bool {
	signed, valid := k.signed(c.prefix, body), false
	for _, s := range c.signatures {
		if s.version == k.version {
			valid = k.fits(signed, s.sum) || valid
		}
	}
	return valid
}

// signed is what a signature is compared with: the HMAC (RFC 2104), or the message itself for Ed25519 (RFC 8032).
func (k key) signed(prefix string, body []byte) []byte {
	if k.public != nil {
		return slices.Concat([]byte(prefix), body)
	}
	mac := hmac.New(k.hash, k.secret)
	_, _ = mac.Write([]byte(prefix)) // a hash never fails
	_, _ = mac.Write(body)
	return mac.Sum(nil)
}

func (k key) fits(signed, sum []byte) bool {
	if k.public != nil {
		return len(sum) == ed25519.SignatureSize && ed25519.Verify(k.public, signed, sum)
	}
	return hmac.Equal(signed, sum)
}
