package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"sync"
	"time"

	"github.com/walhook/walhook/relay/delivery"
)

// signaturePrefix begins every value of the sha256 scheme.
const signaturePrefix = "sha256="

// Sign returns the value of X-Webhook-Signature for one secret: "sha256=" and the lower-case hexadecimal
// HMAC-SHA256 (RFC 2104) of body, keyed with the secret's bytes as they are. GitHub signs in the same way,
// so its published vectors hold here.
func Sign(secret delivery.Secret, body []byte) string {
	return string(newSigner(secret).append(nil, body))
}

// signer signs with one secret. It keeps keyed HMAC states, because deriving them from the key costs as
// much as signing a small body does.
type signer struct{ states sync.Pool }

// signState is one keyed HMAC and room for its sum.
type signState struct {
	mac hash.Hash
	sum [sha256.Size]byte
}

func newSigner(secret delivery.Secret) *signer {
	key := []byte(secret.Reveal())
	s := &signer{}
	s.states.New = func() any { return &signState{mac: hmac.New(sha256.New, key)} }
	return s
}

// append appends "sha256=<hex>" for body to dst.
func (s *signer) append(dst, body []byte) []byte {
	state := s.states.Get().(*signState)
	defer s.states.Put(state)
	state.mac.Reset()
	_, _ = state.mac.Write(body) // a hash never fails
	dst = append(dst, signaturePrefix...)
	return hex.AppendEncode(dst, state.mac.Sum(state.sum[:0]))
}

// keys holds the signers of one subscription. Either may be nil.
type keys struct {
	current         *signer
	previous        *signer
	previousExpires time.Time // zero: never
}

func newKeys(set *delivery.Settings) keys {
	var k keys
	if set.Secret != "" {
		k.current = newSigner(set.Secret)
	}
	if set.PreviousSecret != "" {
		k.previous = newSigner(set.PreviousSecret)
		k.previousExpires = set.PreviousSecretExpiresAt
	}
	return k
}

// sign returns the header's value: the current secret's signature first, since receivers of this scheme
// compare one value, and the previous one's behind a comma while it is valid. It is empty when no secret
// is.
func (k *keys) sign(body []byte, now time.Time) string {
	var room [160]byte
	out := room[:0]
	if k.current != nil {
		out = k.current.append(out, body)
	}
	if k.previous != nil && (k.previousExpires.IsZero() || now.Before(k.previousExpires)) {
		if len(out) > 0 {
			out = append(out, ", "...)
		}
		out = k.previous.append(out, body)
	}
	return string(out)
}
