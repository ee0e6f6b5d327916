package receiver_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"net/http"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/outbox/receiver"
)

const (
	standardSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	otherSecret    = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
	body           = `{"event_type":"a.b","n":1.50}`
)

var (
	now        = time.Unix(1_731_705_121, 0)
	private    = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	publicText = "whpk_" + base64.StdEncoding.EncodeToString(private.Public().(ed25519.PublicKey))
)

func sum(h func() hash.Hash, secret, message string) []byte {
	mac := hmac.New(h, []byte(secret))
	mac.Write([]byte(message))
	return mac.Sum(nil)
}

func hexSum(secret, message string) string {
	return hex.EncodeToString(sum(sha256.New, secret, message))
}

func standardSum(t *testing.T, secret, id string, at time.Time, message string) string {
	t.Helper()
	w, err := standardwebhooks.NewWebhook(secret)
	require.NoError(t, err)
	signature, err := w.Sign(id, at, []byte(message))
	require.NoError(t, err)
	return signature
}

// signed is a request as a sender of the scheme makes it, with the signatures of all secrets.
func signed(t *testing.T, scheme receiver.Scheme, at time.Time, message string, secrets ...string) http.Header {
	t.Helper()
	seconds := fmt.Sprint(at.Unix())
	var sums []string
	for _, s := range secrets {
		switch scheme {
		case receiver.SHA256, receiver.GitHub:
			sums = append(sums, "sha256="+hexSum(s, message))
		case receiver.SHA1:
			sums = append(sums, "sha1="+hex.EncodeToString(sum(sha1.New, s, message)))
		case receiver.Standard:
			sums = append(sums, standardSum(t, s, "msg_1", at, message))
		case receiver.StandardEd25519:
			sums = append(sums, "v1a,"+base64.StdEncoding.EncodeToString(ed25519.Sign(private, []byte("msg_1."+seconds+"."+message))))
		case receiver.Stripe:
			sums = append(sums, "v1="+hexSum(s, seconds+"."+message))
		case receiver.Shopify:
			sums = append(sums, base64.StdEncoding.EncodeToString(sum(sha256.New, s, message)))
		case receiver.Slack:
			sums = append(sums, "v0="+hexSum(s, "v0:"+seconds+":"+message))
		}
	}
	h := http.Header{}
	switch scheme {
	case receiver.SHA256:
		h.Set("X-Webhook-Signature", strings.Join(sums, ", "))
	case receiver.GitHub:
		h.Set("X-Hub-Signature-256", strings.Join(sums, ","))
	case receiver.SHA1:
		h.Set("X-Hub-Signature", strings.Join(sums, ","))
	case receiver.Standard, receiver.StandardEd25519:
		h.Set("webhook-id", "msg_1")
		h.Set("webhook-timestamp", seconds)
		h.Set("webhook-signature", strings.Join(sums, " "))
	case receiver.Stripe:
		h.Set("Stripe-Signature", "t="+seconds+","+strings.Join(sums, ",")+",v0=00")
	case receiver.Shopify:
		h.Set("X-Shopify-Hmac-Sha256", strings.Join(sums, ","))
	case receiver.Slack:
		h.Set("X-Slack-Signature", strings.Join(sums, ","))
		h.Set("X-Slack-Request-Timestamp", seconds)
	}
	return h
}

// secretsOf are one that signs, and one that signs beside it in a rotation.
func secretsOf(scheme receiver.Scheme) (verify string, sign, other string) {
	if scheme == receiver.StandardEd25519 {
		return publicText, "", ""
	}
	return standardSecret, standardSecret, otherSecret
}

func verifier(t *testing.T, scheme receiver.Scheme, secrets ...string) *receiver.Verifier {
	t.Helper()
	v, err := receiver.NewVerifier(receiver.Options{Scheme: scheme, Secrets: secrets, Now: func() time.Time { return now }})
	require.NoError(t, err)
	return v
}

func TestEverySchemeVerifies(t *testing.T) {
	t.Parallel()
	for _, scheme := range receiver.Schemes() {
		t.Run(string(scheme), func(t *testing.T) {
			t.Parallel()
			secret, sign, other := secretsOf(scheme)
			v := verifier(t, scheme, secret)
			h := signed(t, scheme, now, body, sign)
			require.NoError(t, v.Verify(h, []byte(body)))
			require.ErrorIs(t, v.Verify(h, []byte(body+" ")), receiver.ErrInvalid, "another body")
			require.ErrorIs(t, v.Verify(http.Header{}, []byte(body)), receiver.ErrMissing)
			if scheme == receiver.StandardEd25519 {
				require.Equal(t, receiver.Standard, receiver.SchemeOf(h))
				require.NoError(t, verifier(t, receiver.Standard, secret).Verify(h, []byte(body)), "Standard takes public keys as well")
				return
			}
			require.Equal(t, scheme, receiver.SchemeOf(h))
			require.NoError(t, v.Verify(signed(t, scheme, now, body, other, sign), []byte(body)), "the sender rotates")
			require.NoError(t, v.Verify(signed(t, scheme, now, body, sign, other), []byte(body)), "the sender rotates")
			require.NoError(t, verifier(t, scheme, other, secret).Verify(h, []byte(body)), "the receiver rotates")
			require.NoError(t, verifier(t, scheme, secret, other).Verify(h, []byte(body)), "the receiver rotates")
			require.ErrorIs(t, verifier(t, scheme, other).Verify(h, []byte(body)), receiver.ErrInvalid, "another secret")
		})
	}
}

func TestTimestampsAreHeldToTheTolerance(t *testing.T) {
	t.Parallel()
	timed := map[receiver.Scheme]bool{receiver.Standard: true, receiver.StandardEd25519: true, receiver.Stripe: true, receiver.Slack: true}
	for _, scheme := range receiver.Schemes() {
		secret, sign, _ := secretsOf(scheme)
		for _, c := range []struct {
			off, tolerance time.Duration
			fine           bool
		}{
			{-5 * time.Minute, 0, true}, {5 * time.Minute, 0, true}, {-301 * time.Second, 0, false}, {301 * time.Second, 0, false},
			{-time.Hour, 2 * time.Hour, true}, {time.Hour, 30 * time.Minute, false}, {-1000 * time.Hour, -1, true},
		} {
			h := signed(t, scheme, now.Add(c.off), body, sign)
			v, err := receiver.NewVerifier(receiver.Options{Scheme: scheme, Secrets: []string{secret}, Tolerance: c.tolerance, Now: func() time.Time { return now }})
			require.NoError(t, err)
			err = v.Verify(h, []byte(body))
			if c.fine || !timed[scheme] {
				require.NoError(t, err, "%s %v", scheme, c)
				continue
			}
			require.ErrorIs(t, err, receiver.ErrExpired, "%s %v", scheme, c)
			require.NotErrorIs(t, err, receiver.ErrInvalid)
			require.ErrorIs(t, v.Verify(h, []byte("other")), receiver.ErrInvalid, "only who knows the secret hears of the time")
		}
	}
}

// The timestamp is part of what is signed: it cannot be made new.
func TestTimestampsCannotBeExchanged(t *testing.T) {
	t.Parallel()
	for scheme, header := range map[receiver.Scheme]string{receiver.Standard: "Webhook-Timestamp", receiver.Slack: "X-Slack-Request-Timestamp"} {
		h := signed(t, scheme, now.Add(-time.Hour), body, standardSecret)
		h.Set(header, fmt.Sprint(now.Unix()))
		require.ErrorIs(t, verifier(t, scheme, standardSecret).Verify(h, []byte(body)), receiver.ErrInvalid)
		for _, text := range []string{"soon", "99999999999999999999", "1.5"} {
			h.Set(header, text)
			require.ErrorIs(t, verifier(t, scheme, standardSecret).Verify(h, []byte(body)), receiver.ErrInvalid, text)
		}
		h.Del(header)
		require.ErrorIs(t, verifier(t, scheme, standardSecret).Verify(h, []byte(body)), receiver.ErrMissing)
	}
	h := signed(t, receiver.Standard, now, body, standardSecret)
	h.Set("webhook-id", "msg_2")
	require.ErrorIs(t, verifier(t, receiver.Standard, standardSecret).Verify(h, []byte(body)), receiver.ErrInvalid, "nor can the id")
	h.Del("webhook-id")
	require.ErrorIs(t, verifier(t, receiver.Standard, standardSecret).Verify(h, []byte(body)), receiver.ErrMissing)
	h = signed(t, receiver.Stripe, now, body, standardSecret)
	h.Add("Stripe-Signature", fmt.Sprintf("t=%d", now.Unix()+1))
	require.ErrorIs(t, verifier(t, receiver.Stripe, standardSecret).Verify(h, []byte(body)), receiver.ErrInvalid, "two timestamps")
}

// Vectors that GitHub and Standard Webhooks publish, and the example of Slack's documentation.
func TestPublishedVectors(t *testing.T) {
	t.Parallel()
	const github = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
	for _, c := range []struct {
		scheme       receiver.Scheme
		secret, body string
		at           int64
		header       map[string]string
	}{
		{receiver.GitHub, "It's a Secret to Everybody", "Hello, World!", 0, map[string]string{"X-Hub-Signature-256": "sha256=" + github}},
		{receiver.SHA256, "It's a Secret to Everybody", "Hello, World!", 0, map[string]string{"X-Webhook-Signature": "sha256=" + strings.ToUpper(github)}},
		{receiver.Standard, "whsec_plJ3nmyCDGBKInavdOK15jsl", `{"event_type":"ping","data":{"success":true}}`, 1731705121, map[string]string{
			"webhook-id": "msg_loFOjxBNrRLzqYUf", "webhook-timestamp": "1731705121",
			"webhook-signature": "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0="}},
		{receiver.Slack, "8f742231b10e8888abcd99yyyzzz85a5",
			"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA" +
				"&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554" +
				"%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c", 1531420618, map[string]string{
				"X-Slack-Request-Timestamp": "1531420618",
				"X-Slack-Signature":         "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"}},
	} {
		v, err := receiver.NewVerifier(receiver.Options{Scheme: c.scheme, Secrets: []string{c.secret}, Now: func() time.Time { return time.Unix(c.at, 0) }})
		require.NoError(t, err)
		h := http.Header{}
		for name, value := range c.header {
			h.Set(name, value)
		}
		require.NoError(t, v.Verify(h, []byte(c.body)), c.scheme)
	}
}

func TestSignaturesThatProveNothing(t *testing.T) {
	t.Parallel()
	right := hexSum("s3cret", body)
	for _, value := range []string{
		right, "sha1=" + right, "sha256=", "sha256=" + right[:62], "sha256=" + right + "00", "sha256=" + strings.Repeat("x", 64), ",", "sha256",
		strings.Repeat("sha256=00,", 20) + "sha256=" + right, // more than anybody sends
	} {
		h := http.Header{"X-Webhook-Signature": {value}}
		require.ErrorIs(t, verifier(t, receiver.SHA256, "s3cret").Verify(h, []byte(body)), receiver.ErrInvalid, value)
	}
	require.NoError(t, verifier(t, receiver.SHA256, "s3cret").Verify(http.Header{"X-Webhook-Signature": {"sha256=00", "sha256=" + right}}, []byte(body)), "two lines")
	require.ErrorIs(t, verifier(t, receiver.SHA256, "s3cret").Verify(http.Header{"X-Webhook-Signature": {""}}, []byte(body)), receiver.ErrMissing)

	v1 := standardSum(t, standardSecret, "msg_1", now, body)
	for _, value := range []string{"v1a," + v1[3:], "v2," + v1[3:], v1[3:], "v1", "v1,"} {
		h := http.Header{"Webhook-Id": {"msg_1"}, "Webhook-Timestamp": {fmt.Sprint(now.Unix())}, "Webhook-Signature": {value}}
		require.ErrorIs(t, verifier(t, receiver.Standard, standardSecret, publicText).Verify(h, []byte(body)), receiver.ErrInvalid, value)
	}
	// Whoever knows the public key must not be able to sign with it.
	forged := standardSum(t, "whsec_"+publicText[5:], "msg_1", now, body)
	h := http.Header{"Webhook-Id": {"msg_1"}, "Webhook-Timestamp": {fmt.Sprint(now.Unix())}, "Webhook-Signature": {forged}}
	require.ErrorIs(t, verifier(t, receiver.Standard, publicText).Verify(h, []byte(body)), receiver.ErrInvalid)
}

func TestNoneAcceptsEverything(t *testing.T) {
	t.Parallel()
	require.NoError(t, verifier(t, receiver.None).Verify(http.Header{}, nil))
	require.Equal(t, receiver.None, receiver.SchemeOf(http.Header{}))
}

func TestSecretsThatAreOfNoUse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		scheme  receiver.Scheme
		secrets []string
		says    string
	}{
		{"sha512", []string{"canary"}, `"sha512" is not known: use one of [sha256 standard`},
		{"", []string{"canary"}, "is not known"},
		{receiver.SHA256, nil, "no secret"},
		{receiver.SHA256, []string{"fine", ""}, "secret 2 of 2: it is empty"},
		{receiver.SHA256, []string{publicText}, "public key"},
		{receiver.Stripe, []string{"whsk_canary"}, "private key"},
		{receiver.Standard, []string{"whsec_canary!"}, "not base64"},
		{receiver.Standard, []string{"whsec_"}, "not base64"},
		{receiver.Standard, []string{"whpk_Y2FuYXJ5"}, "32 bytes"},
		{receiver.StandardEd25519, []string{standardSecret}, "whpk_"},
	} {
		_, err := receiver.NewVerifier(receiver.Options{Scheme: c.scheme, Secrets: c.secrets})
		require.ErrorContains(t, err, c.says)
		for _, hidden := range []string{"canary", "Y2FuYXJ5", publicText[5:], standardSecret[6:]} {
			require.NotContains(t, err.Error(), hidden)
		}
	}
}

// FuzzSignature: nobody without the secret can make a signature, and no header makes Verify panic. What the
// fuzzer makes up is put into every header that a scheme reads.
func FuzzSignature(f *testing.F) {
	for _, s := range []string{"sha256=00", "v1,AAAA v1a,AAAA", "t=1731705121,v1=00", "t=1,t=2", "v0=", "", ",,,", "\xff"} {
		f.Add(s, "1731705121", body)
	}
	var verifiers []*receiver.Verifier
	for _, scheme := range receiver.Schemes() {
		v, err := receiver.NewVerifier(receiver.Options{Scheme: scheme, Secrets: []string{publicText}})
		if scheme != receiver.Standard && scheme != receiver.StandardEd25519 {
			v, err = receiver.NewVerifier(receiver.Options{Scheme: scheme, Secrets: []string{"a secret that the fuzzer does not know"}})
		}
		require.NoError(f, err)
		verifiers = append(verifiers, v)
	}
	f.Fuzz(func(t *testing.T, signature, at, message string) {
		h := http.Header{}
		for _, name := range []string{"X-Webhook-Signature", "Webhook-Signature", "X-Hub-Signature-256", "X-Hub-Signature", "Stripe-Signature",
			"X-Shopify-Hmac-Sha256", "X-Slack-Signature"} {
			h.Set(name, signature)
		}
		h.Set("Webhook-Id", at)
		h.Set("Webhook-Timestamp", at)
		h.Set("X-Slack-Request-Timestamp", at)
		for _, v := range verifiers {
			require.Error(t, v.Verify(h, []byte(message)))
		}
	})
}
