package webhook_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/webhook"
)

// TestSignVectors: the first is GitHub's, published in "Validating webhook deliveries"; the second is test
// case 2 of RFC 4231.
func TestSignVectors(t *testing.T) {
	for _, v := range []struct {
		secret     delivery.Secret
		body, want string
	}{
		{"It's a Secret to Everybody", "Hello, World!", "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"},
		{"Jefe", "what do ya want for nothing?", "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
	} {
		require.Equal(t, v.want, webhook.Sign(v.secret, []byte(v.body)))
	}
}

func TestWhichSecretsSign(t *testing.T) {
	url, got := receiver(t, ok)
	s := newSender(t)
	past, future := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	for name, test := range map[string]struct {
		signature         string
		current, previous delivery.Secret
		expires           time.Time
		want              []delivery.Secret
	}{
		"one secret":                     {"", secret, "", time.Time{}, []delivery.Secret{secret}},
		"named scheme":                   {"sha256", secret, "", time.Time{}, []delivery.Secret{secret}},
		"no secret":                      {"sha256", "", "", time.Time{}, nil},
		"none":                           {"none", secret, "older", future, nil},
		"previous without an end":        {"", secret, "older", time.Time{}, []delivery.Secret{secret, "older"}},
		"previous still valid":           {"", secret, "older", future, []delivery.Secret{secret, "older"}},
		"previous expired":               {"", secret, "older", past, []delivery.Secret{secret}},
		"only the previous, still valid": {"", "", "older", future, []delivery.Secret{"older"}},
		"only the previous, expired":     {"", "", "older", past, nil},
	} {
		t.Run(name, func(t *testing.T) {
			set := settings(url)
			set.Signature, set.Secret = test.signature, test.current
			set.PreviousSecret, set.PreviousSecretExpiresAt = test.previous, test.expires
			require.Equal(t, delivery.ReasonNone, send(t, s, set).Reason)
			r := <-got
			var want string
			for i, key := range test.want {
				if i > 0 {
					want += ", "
				}
				want += webhook.Sign(key, r.body)
			}
			require.Equal(t, want, r.header.Get("X-Webhook-Signature"))
			require.Equal(t, want != "", len(r.header["X-Webhook-Signature"]) == 1)
		})
	}
}
