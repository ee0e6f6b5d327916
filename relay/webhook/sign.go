package webhook

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"slices"
	"sync"
	"time"

	"github.com/walhook/walhook/internal/fault"
	"github.com/walhook/walhook/relay/delivery"
)

// signer signs with one secret: with HMAC-SHA256, or with Ed25519 (RFC 8032) when it has a private key.
type signer struct {
	private ed25519.PrivateKey
	// states are keyed HMAC states, kept because deriving them from the key costs as much as signing a small
	// body does.
	states sync.Pool
}

// signState is one keyed HMAC and room for its sum.
type signState struct {
	mac hash.Hash
	sum [sha256.Size]byte
}

func newSigner(key []byte) *signer {
	s := &signer{}
	s.states.New = func() any { return &signState{mac: hmac.New(sha256.New, key)} }
	return s
}

// append appends the signature of prefix and body, one behind the other, to dst.
func (s *signer) append(dst, prefix, body []byte, in encoding) []byte {
	if s.private != nil {
		return in.append(dst, ed25519.Sign(s.private, slices.Concat(prefix, body)))
	}
	state := s.states.Get().(*signState)
	defer s.states.Put(state)
	state.mac.Reset()
	_, _ = state.mac.Write(prefix) // a hash never fails
	_, _ = state.mac.Write(body)
	return in.append(dst, state.mac.Sum(state.sum[:0]))
}

// encoding is how a signature becomes text.
type encoding bool

const (
	inHex    encoding = false // lower-case hexadecimal
	inBase64 encoding = true  // RFC 4648, section 4, padded
)

func (e encoding) append(dst, signature []byte) []byte {
	if e == inBase64 {
		return base64.StdEncoding.AppendEncode(dst, signature)
	}
	return hex.AppendEncode(dst, signature)
}

// keys holds the signers of one subscription. Either may be nil.
type keys struct {
	current         *signer
	previous        *signer
	previousExpires time.Time // zero: never
}

// newKeys makes the signers of a subscription. A previous secret that has expired is left out, whatever it
// holds: it may be from a time when the subscription was signed in another way.
func newKeys(set *delivery.Settings, s *scheme, now time.Time) (k keys, err error) {
	if set.Secret != "" {
		if k.current, err = s.key("secret", set.Secret.Reveal()); err != nil {
			return k, err
		}
	}
	k.previousExpires = set.PreviousSecretExpiresAt
	if set.PreviousSecret != "" && k.previousSigns(now) {
		k.previous, err = s.key("previous_secret", set.PreviousSecret.Reveal())
	}
	return k, err
}

func (k *keys) previousSigns(now time.Time) bool {
	return k.previousExpires.IsZero() || now.Before(k.previousExpires) || fault.Bug(fault.OldSecretKept)
}

// valid returns the signers that sign now, the current one first, since some receivers look at the first
// signature only.
func (k *keys) valid(now time.Time) (list [2]*signer, n int) {
	if k.current != nil {
		list[n] = k.current
		n++
	}
	if k.previous != nil && k.previousSigns(now) {
		list[n] = k.previous
		n++
	}
	return list, n
}
