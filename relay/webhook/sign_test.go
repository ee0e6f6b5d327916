package webhook_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
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
		require.Equal(t, v.want, webhook.ValueForTest("github", []byte(v.secret), "", time.Time{}, v.body))
	}
}

// TestSchemeVectors has the vectors that the schemes' authors publish: Standard Webhooks, and Slack in
// "Verifying requests from Slack".
func TestSchemeVectors(t *testing.T) {
	key, err := base64.StdEncoding.DecodeString("plJ3nmyCDGBKInavdOK15jsl")
	require.NoError(t, err)
	require.Equal(t, "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=", webhook.ValueForTest("standard", key,
		"msg_loFOjxBNrRLzqYUf", time.Unix(1731705121, 0), `{"event_type":"ping","data":{"success":true}}`))

	require.Equal(t, "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503", webhook.ValueForTest("slack",
		[]byte("8f742231b10e8888abcd99yyyzzz85a5"), "", time.Unix(1531420618, 0),
		"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar"+
			"&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="+
			"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"+
			"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"))
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
			require.Equal(t, allOf(r.body, test.want...), r.header.Get("X-Webhook-Signature"))
			require.Equal(t, len(test.want) > 0, len(r.header["X-Webhook-Signature"]) == 1)
		})
	}
}

// allOf is the X-Webhook-Signature of body with these secrets.
func allOf(body []byte, secrets ...delivery.Secret) string {
	var all []string
	for _, key := range secrets {
		all = append(all, webhook.Sign(key, body))
	}
	return strings.Join(all, ", ")
}

// attempt sends delivery number attempt under these settings and returns what the receiver got.
func attempt(t *testing.T, s *webhook.Sender, got chan request, set *delivery.Settings, number int) request {
	t.Helper()
	d := newDelivery(`{"n":1.10}`)
	d.Attempts = number - 1
	out := s.Send(t.Context(), []*delivery.Delivery{d}, set)
	checkOutcome(t, out)
	require.True(t, out.Succeeded(), out.Error)
	return <-got
}

// requireSeconds checks that text is the time of an attempt between before and now.
func requireSeconds(t *testing.T, before time.Time, text string) {
	t.Helper()
	seconds, err := strconv.ParseInt(text, 10, 64)
	require.NoError(t, err)
	require.GreaterOrEqual(t, seconds, before.Unix())
	require.LessOrEqual(t, seconds, time.Now().Unix())
}

func whsec(c byte, n int) delivery.Secret {
	return delivery.Secret("whsec_" + base64.StdEncoding.EncodeToString([]byte(stringOf(c, n))))
}

// TestStandardSignature: the library of Standard Webhooks is the receiver.
func TestStandardSignature(t *testing.T) {
	url, got := receiver(t, ok)
	s := newSender(t)
	for _, current := range []delivery.Secret{whsec('a', 16), whsec('b', 64), delivery.Secret(strings.TrimPrefix(whsec('c', 32).Reveal(), "whsec_"))} {
		set := settings(url)
		set.Signature, set.Secret = "standard", current
		set.PreviousSecret = whsec('p', 40)
		before := time.Now()
		r := attempt(t, s, got, set, 2)
		for _, key := range []delivery.Secret{current, set.PreviousSecret} {
			receiver, err := standardwebhooks.NewWebhook(key.Reveal())
			require.NoError(t, err)
			require.NoError(t, receiver.Verify(r.body, r.header))
			require.Error(t, receiver.Verify(append(r.body, ' '), r.header))
		}
		require.Equal(t, r.header.Get("X-Webhook-ID"), r.header.Get("webhook-id"))
		requireSeconds(t, before, r.header.Get("webhook-timestamp"))
		require.Len(t, strings.Split(r.header.Get("webhook-signature"), " "), 2)
		require.Empty(t, r.header.Get("X-Webhook-Signature"))
	}
}

func TestEd25519Signature(t *testing.T) {
	url, got := receiver(t, ok)
	s := newSender(t)
	private := ed25519.NewKeyFromSeed([]byte(stringOf('s', 32)))
	older := ed25519.NewKeyFromSeed([]byte(stringOf('o', 32)))
	encode := func(prefix string, key []byte) delivery.Secret {
		return delivery.Secret(prefix + base64.StdEncoding.EncodeToString(key))
	}
	for _, key := range []delivery.Secret{encode("whsk_", private), encode("", private), encode("whsk_", private.Seed())} {
		set := settings(url)
		set.Signature, set.Secret, set.PreviousSecret = "standard-ed25519", key, encode("whsk_", older)
		before := time.Now()
		r := attempt(t, s, got, set, 1)
		requireSeconds(t, before, r.header.Get("webhook-timestamp"))
		content := r.header.Get("webhook-id") + "." + r.header.Get("webhook-timestamp") + "." + string(r.body)
		signatures := strings.Split(r.header.Get("webhook-signature"), " ")
		require.Len(t, signatures, 2)
		for i, signer := range []ed25519.PrivateKey{private, older} {
			text, found := strings.CutPrefix(signatures[i], "v1a,")
			require.True(t, found)
			signature, err := base64.StdEncoding.DecodeString(text)
			require.NoError(t, err)
			require.True(t, ed25519.Verify(signer.Public().(ed25519.PublicKey), []byte(content), signature))
		}
	}
}

func TestStripeSignature(t *testing.T) {
	url, got := receiver(t, ok)
	set := settings(url)
	set.Signature, set.Secret, set.PreviousSecret = "stripe", "whsec_whole", "older"
	before := time.Now()
	r := attempt(t, newSender(t), got, set, 1)
	parts := strings.Split(r.header.Get("Stripe-Signature"), ",")
	require.Len(t, parts, 3)
	at, found := strings.CutPrefix(parts[0], "t=")
	require.True(t, found)
	requireSeconds(t, before, at)
	for i, key := range []delivery.Secret{"whsec_whole", "older"} {
		want := webhook.Sign(key, []byte(at+"."+string(r.body)))
		require.Equal(t, "v1="+strings.TrimPrefix(want, "sha256="), parts[i+1])
	}
	require.Empty(t, r.header.Get("X-Webhook-Signature"))
}

// vendors are the schemes whose header holds one signature, and how it is verified.
var vendors = map[string]func(r request, key delivery.Secret) (got, want string){
	"github": func(r request, key delivery.Secret) (string, string) {
		return r.header.Get("X-Hub-Signature-256"), webhook.Sign(key, r.body)
	},
	"shopify": func(r request, key delivery.Secret) (string, string) {
		sum, _ := hex.DecodeString(strings.TrimPrefix(webhook.Sign(key, r.body), "sha256="))
		return r.header.Get("X-Shopify-Hmac-Sha256"), base64.StdEncoding.EncodeToString(sum)
	},
	"slack": func(r request, key delivery.Secret) (string, string) {
		content := "v0:" + r.header.Get("X-Slack-Request-Timestamp") + ":" + string(r.body)
		return r.header.Get("X-Slack-Signature"), "v0=" + strings.TrimPrefix(webhook.Sign(key, []byte(content)), "sha256=")
	},
}

// TestTurns: while two secrets are valid, a receiver that knows either of them and verifies as its vendor
// says accepts the first or the second attempt.
func TestTurns(t *testing.T) {
	url, got := receiver(t, ok)
	s := newSender(t)
	for name, verify := range vendors {
		set := settings(url)
		set.Signature, set.PreviousSecret = name, "older"
		for number, key := range []delivery.Secret{"", secret, "older", secret, "older"} {
			if number == 0 {
				continue
			}
			r := attempt(t, s, got, set, number)
			value, want := verify(r, key)
			require.Equal(t, want, value, "%s, attempt %d", name, number)
			require.Equal(t, allOf(r.body, secret, "older"), r.header.Get("X-Webhook-Signature"))
		}

		set.PreviousSecretExpiresAt = time.Now().Add(-time.Second)
		r := attempt(t, s, got, set, 2)
		value, want := verify(r, secret)
		require.Equal(t, want, value, "%s when one secret is valid", name)
		require.Empty(t, r.header.Get("X-Webhook-Signature"))

		set.Secret, set.PreviousSecretExpiresAt = "", time.Time{}
		value, want = verify(attempt(t, s, got, set, 1), "older")
		require.Equal(t, want, value, "%s with the previous secret alone", name)
	}
}

// TestSchemeHeaders has what a scheme sends beside its signature, with a secret and without.
func TestSchemeHeaders(t *testing.T) {
	url, got := receiver(t, ok)
	s := newSender(t)
	const id = "0192f0c1-2345-8678-9abc-def012345678"
	all := []string{"X-Webhook-Signature", "Webhook-Signature", "X-Hub-Signature-256", "Stripe-Signature",
		"X-Shopify-Hmac-Sha256", "X-Slack-Signature"}
	for name, test := range map[string]struct {
		signature string
		key       delivery.Secret
		extra     map[string]string
	}{
		"sha256":   {"X-Webhook-Signature", secret, nil},
		"standard": {"Webhook-Signature", whsec('k', 24), map[string]string{"webhook-id": id}},
		"standard-ed25519": {"Webhook-Signature", delivery.Secret(base64.StdEncoding.EncodeToString([]byte(stringOf('k', 32)))),
			map[string]string{"webhook-id": id}},
		"github": {"X-Hub-Signature-256", secret, map[string]string{"X-GitHub-Event": "patient.created", "X-GitHub-Delivery": id}},
		"stripe": {"Stripe-Signature", secret, nil},
		"shopify": {"X-Shopify-Hmac-Sha256", secret, map[string]string{"X-Shopify-Topic": "patient.created", "X-Shopify-Webhook-Id": id,
			"X-Shopify-Shop-Domain": "walhook", "X-Shopify-API-Version": "1"}},
		"slack": {"X-Slack-Signature", secret, nil},
		"none":  {"", secret, nil},
	} {
		for _, key := range []delivery.Secret{test.key, ""} {
			set := settings(url)
			set.Signature, set.Secret = name, key
			before := time.Now()
			r := attempt(t, s, got, set, 3)
			for _, header := range all {
				require.Equal(t, header == test.signature && key != "", r.header.Get(header) != "", "%s %s", name, header)
			}
			for header, want := range test.extra {
				require.Equal(t, want, r.header.Get(header), "%s %s", name, header)
			}
			for header, sent := range map[string]bool{
				"webhook-timestamp":         strings.HasPrefix(name, "standard"),
				"X-Slack-Request-Timestamp": name == "slack",
			} {
				require.Equal(t, sent, r.header.Get(header) != "", "%s %s", name, header)
				if sent {
					requireSeconds(t, before, r.header.Get(header))
				}
			}
			require.Equal(t, []string{"patient.created", id, "3"},
				[]string{r.header.Get("X-Webhook-Event"), r.header.Get("X-Webhook-ID"), r.header.Get("X-Webhook-Attempt")})
		}
	}
}

func TestSecretsThatAreNoKeys(t *testing.T) {
	private := []byte(ed25519.NewKeyFromSeed([]byte(stringOf('s', 32))))
	private[63] ^= 1
	mixed := delivery.Secret("whsk_" + base64.StdEncoding.EncodeToString(private))
	for _, test := range []struct {
		signature string
		key       delivery.Secret
		want      string
	}{
		{"standard", secret, " is not base64, which the signature standard wants: use whsec_ and the base64 of 24 to 64 random bytes"},
		{"standard", whsec('k', 15), " has 15 bytes behind its base64, and the signature standard wants 16 to 64"},
		{"standard", whsec('k', 65), " has 65 bytes"},
		{"standard", whsec('k', 2), " has 2 bytes"},
		{"standard", "whsk_" + whsec('k', 32)[6:], " is not base64"},
		{"standard-ed25519", secret, " is not an Ed25519 key, which the signature standard-ed25519 wants: use whsk_"},
		{"standard-ed25519", "whsk_" + whsec('k', 33)[6:], " is not an Ed25519 key"},
		{"standard-ed25519", mixed, "public half does not belong to its private half"},
	} {
		set := settings("http://example.com/")
		set.Signature, set.Secret = test.signature, test.key
		require.ErrorContains(t, webhook.Check(set), test.want)
		require.ErrorContains(t, webhook.Check(set), "secret ")
		require.NotContains(t, webhook.Check(set).Error(), test.key.Reveal())

		set.Secret, set.PreviousSecret = "", test.key
		require.ErrorContains(t, webhook.Check(set), "previous_secret ")
		require.NotContains(t, webhook.Check(set).Error(), test.key.Reveal())

		set.PreviousSecretExpiresAt = time.Now().Add(-time.Hour)
		require.NoError(t, webhook.Check(set), "an expired secret signs nothing, whatever it is")
	}
}

// TestKeysAreBlottedOut: a receiver may echo the key without the prefix that it was given with.
func TestKeysAreBlottedOut(t *testing.T) {
	key := whsec('k', 24)
	bare := strings.TrimPrefix(key.Reveal(), "whsec_")
	set := settings(newRawServer(t, answering("HTTP/1.1 400 x\r\nContent-Length: "+strconv.Itoa(len(bare)+1)+"\r\n\r\n"+bare+"!")).url)
	set.Signature, set.Secret = "standard", key
	require.Equal(t, "[redacted]!", send(t, newSender(t), set).Body)
}

// TestAPreviousSecretEndsByItself: nothing but the time changes, so the compiled settings stay.
func TestAPreviousSecretEndsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSender(t)
		var got *http.Request
		s.CarryForTest(func(r *http.Request) (*http.Response, error) {
			got = r
			return &http.Response{StatusCode: 204, Body: http.NoBody, Request: r}, nil
		})
		set := settings("http://example.com/")
		set.Signature, set.PreviousSecret, set.PreviousSecretExpiresAt = "stripe", "older", time.Now().Add(time.Hour)
		for _, want := range []int{2, 1} {
			require.Equal(t, delivery.ReasonNone, send(t, s, set).Reason)
			value := got.Header.Get("Stripe-Signature")
			require.True(t, strings.HasPrefix(value, "t="+strconv.FormatInt(time.Now().Unix(), 10)+","), value)
			require.Equal(t, want, strings.Count(value, "v1="))
			time.Sleep(time.Hour)
		}
	})
}
