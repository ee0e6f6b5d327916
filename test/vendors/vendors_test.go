package vendors_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// key is a secret as its two sides have it. They differ only where the receiver has a public key.
type key struct{ signs, verifies string }

func shared(secret string) key { return key{secret, secret} }

func whsec(seed byte, n int) key {
	return shared("whsec_" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{seed}, n)))
}

func pair(seed byte) key {
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
	return key{
		"whsk_" + base64.StdEncoding.EncodeToString(private),
		"whpk_" + base64.StdEncoding.EncodeToString(private.Public().(ed25519.PublicKey)),
	}
}

// vendor is a receiver's verifier and the subscription that it accepts.
type vendor struct {
	verifier          string // in verifiers.mjs; the npm package, where it is one
	signature, format string
	secret, other     key
	turns             bool // one signature a request: two secrets take turns
	timed             bool // refuses what is older than five minutes
}

var vendors = []vendor{
	{verifier: "sha256", signature: "sha256", format: "envelope", secret: shared("ein schönes Geheimnis"), other: shared("another one")},
	{verifier: "standardwebhooks", signature: "standard", format: "standard", secret: whsec('a', 24), other: whsec('b', 64), timed: true},
	{verifier: "svix", signature: "standard", format: "raw", secret: whsec('c', 32), other: whsec('d', 24), timed: true},
	{verifier: "ed25519", signature: "standard-ed25519", format: "standard", secret: pair('e'), other: pair('f')},
	// Stripe keys with the whole string, prefix and all.
	{verifier: "stripe", signature: "stripe", format: "raw", secret: whsec('g', 24), other: shared("whsec_from the old one"), timed: true},
	{verifier: "@octokit/webhooks-methods", signature: "github", format: "raw", secret: shared("It's a Sécret to Everybody"), other: shared("another one"), turns: true},
	{verifier: "@shopify/shopify-api", signature: "shopify", format: "raw", secret: shared("hush, hüsch"), other: shared("another one"), turns: true},
	{verifier: "verifySlackRequest", signature: "slack", format: "envelope", secret: shared("8f742231b10e8888abcd99yyyzzz85a5"), other: shared("another one"), turns: true, timed: true},
	{verifier: "@slack/bolt", signature: "slack", format: "raw", secret: shared("8f742231b10e8888abcd99yyyzzz85a5"), other: shared("another one"), turns: true},
}

// packages names what is left untried without Node.
func packages() (names []string) {
	for _, v := range vendors {
		names = append(names, v.verifier)
	}
	return append(names, "cloudevents")
}

// receiver is one with the vendor's verifier that knows the secret.
func (v vendor) receiver(knows key) set {
	return set{Verifier: v.verifier, Secret: knows.verifies}
}

// name is fit for an event's type and for a path.
func (v vendor) name() string { return strings.NewReplacer("@", "", "/", "-").Replace(v.verifier) }

func TestVendors(t *testing.T) {
	r := startReceivers(t)
	db := start(t)
	testVectors(t, r)
	for _, v := range vendors {
		t.Run(v.name(), func(t *testing.T) {
			t.Run("accepts", func(t *testing.T) { t.Parallel(); v.accepts(t, db, r) })
			t.Run("refuses", func(t *testing.T) { t.Parallel(); v.refuses(t, db, r) })
			t.Run("rotation", func(t *testing.T) { t.Parallel(); v.rotates(t, db, r) })
		})
	}
	t.Run("cloudevents", func(t *testing.T) { testCloudEvents(t, db, r) })
	t.Run("handshakes", func(t *testing.T) { testHandshakes(t, db, r) })
}

// accepts: an ordinary event and one of a megabyte arrive as they were published, and the verifier takes them.
func (v vendor) accepts(t *testing.T, db database, r receivers) {
	eventType := v.name() + ".accepted"
	url := r.receiver(t, eventType, v.receiver(v.secret))
	db.subscribe(t, url, eventType, columns{"signature": v.signature, "payload_format": v.format, "secret": v.secret.signs})
	db.publish(t, eventType, payload(""))
	db.publish(t, eventType, payload(strings.Repeat("ä", 1<<19)))
	got := answered(t, url, 2)
	require.Equal(t, []int{200, 200}, statuses(got), "%s %s", got[0].Error, got[1].Error)
	for _, request := range got {
		require.Contains(t, string(request.Body), digits)
		require.Contains(t, string(request.Body), umlauts)
		require.Equal(t, "1", request.Headers["x-webhook-attempt"])
	}
	require.Greater(t, len(got[0].Body)+len(got[1].Body), 1<<20)
}

// refuses: the receivers of these tests do look at what they get.
func (v vendor) refuses(t *testing.T, db database, r receivers) {
	eventType := v.name() + ".refused"
	url := r.receiver(t, eventType, v.receiver(v.secret))
	db.subscribe(t, url, eventType, columns{"signature": v.signature, "payload_format": v.format, "secret": v.secret.signs})
	db.publish(t, eventType, payload(""))
	request := answered(t, url, 1)[0]
	require.Equal(t, 200, request.again(t, url))
	require.Equal(t, 401, request.altered(t, digits, strings.Replace(digits, "9", "8", 1)).again(t, url), "one byte of the body")
	stranger := r.receiver(t, eventType+"-stranger", v.receiver(v.other))
	require.Equal(t, 401, request.again(t, stranger), "another secret")
	if v.timed {
		for minutes, status := range map[int]int{4: 200, 6: 401} {
			late := v.receiver(v.secret)
			late.Clock = time.Now().Add(time.Duration(minutes) * time.Minute).Unix()
			url := r.receiver(t, fmt.Sprintf("%s-%d", eventType, minutes), late)
			require.Equal(t, status, request.again(t, url), "%d minutes later", minutes)
		}
	}
}

// rotates: while a secret replaces another, a receiver that knows either accepts: the first attempt, or the second
// where two signatures have no room. Once the previous one has expired, it counts no more.
func (v vendor) rotates(t *testing.T, db database, r receivers) {
	eventType := v.name() + ".rotated"
	previous := []int{200}
	if v.turns {
		previous = []int{401, 200}
	}
	tests := []struct {
		name    string
		knows   key
		expires time.Duration
		want    []int
	}{
		{"current", v.secret, time.Hour, []int{200}},
		{"previous", v.other, time.Hour, previous},
		{"expired", v.other, -time.Hour, []int{401, 401}},
	}
	var urls []string
	for _, test := range tests {
		url := r.receiver(t, eventType+"-"+test.name, v.receiver(test.knows))
		db.subscribe(t, url, eventType, columns{
			"signature": v.signature, "payload_format": v.format, "max_retries": 1, "secret": v.secret.signs,
			"previous_secret": v.other.signs, "previous_secret_expires_at": time.Now().Add(test.expires),
		})
		urls = append(urls, url)
	}
	db.publish(t, eventType, payload(""))
	for i, test := range tests {
		require.Equal(t, test.want, statuses(answered(t, urls[i], len(test.want))), test.name)
	}
}

// testVectors: what is published as signed is accepted, so that the receivers verify what their vendors mean.
func testVectors(t *testing.T, r receivers) {
	for _, vector := range []struct {
		verifier, secret string
		clock            int64
		headers          map[string]string
		body             string
	}{
		{"standardwebhooks", "whsec_plJ3nmyCDGBKInavdOK15jsl", 1731705121, map[string]string{
			"webhook-id": "msg_loFOjxBNrRLzqYUf", "webhook-timestamp": "1731705121",
			"webhook-signature": "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=",
		}, `{"event_type":"ping","data":{"success":true}}`},
		{"@octokit/webhooks-methods", "It's a Secret to Everybody", 0, map[string]string{
			"X-Hub-Signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
		}, "Hello, World!"},
	} {
		url := r.receiver(t, "vector-"+vendor{verifier: vector.verifier}.name(), set{Verifier: vector.verifier, Secret: vector.secret, Clock: vector.clock})
		published := request{Method: http.MethodPost, Headers: vector.headers, Body: []byte(vector.body)}
		require.Equal(t, 200, published.again(t, url), vector.verifier)
		require.Equal(t, 401, published.altered(t, vector.body[:1], "_").again(t, url), vector.verifier)
	}
}

// TestStandardWebhooksInGo needs no Node: the library is Go.
func TestStandardWebhooksInGo(t *testing.T) {
	t.Parallel()
	db, receiver := start(t), harness.NewCollector(t)
	v := vendors[1]
	db.subscribe(t, receiver.URL(), "test.event", columns{"signature": "standard", "payload_format": "standard",
		"secret": v.secret.signs, "previous_secret": v.other.signs})
	db.publish(t, "test.event", payload(""))
	got := receiver.Wait(1, soon)[0]
	for _, secret := range []key{v.secret, v.other} {
		webhook, err := standardwebhooks.NewWebhook(secret.verifies)
		require.NoError(t, err)
		require.NoError(t, webhook.Verify(got.Body, got.Header))
		require.Error(t, webhook.Verify(append(got.Body, ' '), got.Header))
	}
}
