package judge_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/checker/history"
)

func secret(text string) func(*history.Subscription) {
	return func(row *history.Subscription) { row.Secret = text }
}

// The secret is the first one, from 10 s on the second, and none from 60 s on.
func TestSignatures(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		arrives int
		sign    func(body string) string
		text    string // of the finding; empty: clean
	}{
		"the first secret":                {5_000, func(b string) string { return signature("first", b) }, ""},
		"the second, before":              {5_000, func(b string) string { return signature("second", b) }, "the secrets that were valid make"},
		"the second, just before":         {9_000, func(b string) string { return signature("second", b) }, ""},
		"the first, still":                {39_000, func(b string) string { return signature("first", b) }, ""},
		"the first, too late":             {41_000, func(b string) string { return signature("first", b) }, "the secrets that were valid make"},
		"both":                            {41_000, func(b string) string { return signature("second", b) + ", " + signature("first", b) }, "the secrets that were valid make"},
		"of another body":                 {5_000, func(b string) string { return signature("first", b+" ") }, "the secrets that were valid make"},
		"missing":                         {5_000, func(string) string { return "" }, "is missing"},
		"missing, and no secret any more": {61_000, func(string) string { return "" }, ""},
		"unasked for":                     {95_000, func(b string) string { return signature("second", b) }, "nothing asks for it"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene()
			to := s.subscribe(0, 1)
			s.event(1000, 1, "", to)
			s.subscribe(10_000, 1, secret("second"))
			s.subscribe(60_000, 1, secret(""))
			r := s.request(c.arrives, 1, 1, to)
			r.Signature = signed(c.sign(string(r.Body)))
			if c.text == "" {
				s.clean(t)
				return
			}
			s.one(t, history.Identity, c.text)
		})
	}
}

// The second secret is the current one, and the first still signs until 20.0 s.
func TestRotation(t *testing.T) {
	t.Parallel()
	both := func(b string) string { return signature("second", b) + ", " + signature("first", b) }
	current := func(b string) string { return signature("second", b) }
	held := func(s *scene) { s.fault("link-receiver-hold", 15_000, 24_000, 0) }
	nothing := func(*scene) {}
	for name, c := range map[string]struct {
		arrives int
		sign    func(string) string
		also    func(*scene)
		wrong   bool
	}{
		"both, in time":                   {19_900, both, nothing, false},
		"both, just after":                {20_900, both, nothing, false},
		"both, too late":                  {21_100, both, nothing, true},
		"both, held back on the way":      {25_000, both, held, false},
		"both, held back, and too late":   {30_100, both, held, true},
		"the current one, in time":        {19_900, current, nothing, true},
		"the current one, just after":     {20_100, current, nothing, false},
		"the current one, later":          {25_000, current, nothing, false},
		"the previous one, in time":       {19_900, func(b string) string { return signature("first", b) }, nothing, true},
		"both, the current one not first": {19_900, func(b string) string { return signature("first", b) + ", " + signature("second", b) }, nothing, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene()
			to := s.subscribe(0, 1, secret("second"), func(row *history.Subscription) {
				row.PreviousSecret, row.PreviousExpires = "first", at(20_000)
			})
			s.event(1000, 1, "", to)
			c.also(s)
			r := s.request(c.arrives, 1, 1, to)
			r.Signature = signed(c.sign(string(r.Body)))
			if !c.wrong {
				s.clean(t)
				return
			}
			s.one(t, history.Identity, "the secrets that were valid make")
		})
	}
}

func mac(key, text string) []byte {
	m := hmac.New(sha256.New, []byte(key))
	m.Write([]byte(text))
	return m.Sum(nil)
}

func hexMAC(key, text string) string    { return hex.EncodeToString(mac(key, text)) }
func base64MAC(key, text string) string { return base64.StdEncoding.EncodeToString(mac(key, text)) }

// vendors make the headers of a request as the contract describes them. t is the time of the attempt in seconds.
var vendors = map[string]func(r *history.Receipt, t, secret string) map[string]string{
	"sha256": func(r *history.Receipt, _, secret string) map[string]string {
		return map[string]string{"X-Webhook-Signature": signature(secret, string(r.Body))}
	},
	"github": func(r *history.Receipt, _, secret string) map[string]string {
		return map[string]string{"X-Hub-Signature-256": "sha256=" + hexMAC(secret, string(r.Body)), "X-Github-Event": r.Type, "X-Github-Delivery": r.Delivery}
	},
	"stripe": func(r *history.Receipt, t, secret string) map[string]string {
		return map[string]string{"Stripe-Signature": "t=" + t + ",v1=" + hexMAC(secret, t+"."+string(r.Body))}
	},
	"shopify": func(r *history.Receipt, _, secret string) map[string]string {
		return map[string]string{"X-Shopify-Hmac-Sha256": base64MAC(secret, string(r.Body)), "X-Shopify-Topic": r.Type, "X-Shopify-Webhook-Id": r.Delivery}
	},
	"slack": func(r *history.Receipt, t, secret string) map[string]string {
		return map[string]string{"X-Slack-Signature": "v0=" + hexMAC(secret, "v0:"+t+":"+string(r.Body)), "X-Slack-Request-Timestamp": t}
	},
	"standard": func(r *history.Receipt, t, secret string) map[string]string {
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
		if err != nil {
			panic(err)
		}
		return map[string]string{"Webhook-Id": r.Delivery, "Webhook-Timestamp": t,
			"Webhook-Signature": "v1," + base64MAC(string(key), r.Delivery+"."+t+"."+string(r.Body))}
	},
}

const standardSecret = "whsec_plJ3nmyCDGBKInavdOK15jsl"

func TestSchemes(t *testing.T) {
	t.Parallel()
	for scheme, headers := range vendors {
		build := func() (*scene, *history.Receipt) {
			s := newScene()
			to := s.subscribe(0, 1, secret(standardSecret), func(row *history.Subscription) { row.Signature = scheme })
			s.event(1000, 1, "", to)
			return s, s.request(5_000, 1, 1, to)
		}
		stamp := fmt.Sprint(at(5_000).Unix())
		s, r := build()
		r.Signature = headers(r, stamp, standardSecret)
		s.clean(t)
		for name := range r.Signature {
			s, r := build()
			r.Signature = headers(r, stamp, standardSecret)
			delete(r.Signature, name)
			s.one(t, history.Identity, "")
			r.Signature[name] = "x"
			s.one(t, history.Identity, "")
		}
		s, r = build()
		r.Signature = headers(r, stamp, "whsec_AAAAnmyCDGBKInavdOK15jsl")
		s.one(t, history.Identity, "the secrets that were valid make")
		if late := headers(r, fmt.Sprint(at(-30_000).Unix()), standardSecret); scheme == "slack" || scheme == "stripe" || scheme == "standard" {
			r.Signature = late
			s.one(t, history.Identity, "the time that is signed")
		}
		other := "github"
		if scheme == other {
			other = "stripe"
		}
		r.Signature = vendors[other](r, stamp, standardSecret)
		s.one(t, history.Identity, "")
	}
}

// The published test vector of Standard Webhooks.
func TestStandardVector(t *testing.T) {
	t.Parallel()
	r := &history.Receipt{Delivery: "msg_loFOjxBNrRLzqYUf", Body: []byte(`{"event_type":"ping","data":{"success":true}}`)}
	require.Equal(t, "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=", vendors["standard"](r, "1731705121", standardSecret)["Webhook-Signature"])
}

// Vendors whose verifiers take one signature only get the current secret's on odd attempts and the previous one's on even
// ones, and both beside it.
func TestTurns(t *testing.T) {
	t.Parallel()
	for attempt, own := range map[int]string{1: "second", 2: "first", 3: "second"} {
		s := newScene()
		to := s.subscribe(0, 1, secret("second"), func(row *history.Subscription) {
			row.Signature, row.PreviousSecret, row.PreviousExpires = "github", "first", time.Time{}
		})
		s.event(1000, 1, "", to)
		r := s.request(5_000, 1, attempt, to)
		r.Signature = vendors["github"](r, "", own)
		r.Signature["X-Webhook-Signature"] = signature("second", string(r.Body)) + ", " + signature("first", string(r.Body))
		s.clean(t)
		delete(r.Signature, "X-Webhook-Signature")
		s.one(t, history.Identity, "X-Webhook-Signature is missing")
		other := map[string]string{"first": "second", "second": "first"}[own]
		r.Signature = vendors["github"](r, "", other)
		r.Signature["X-Webhook-Signature"] = signature("second", string(r.Body)) + ", " + signature("first", string(r.Body))
		s.one(t, history.Identity, "X-Hub-Signature-256 is")
	}
}

func TestUnsigned(t *testing.T) {
	t.Parallel()
	s := newScene()
	to := s.subscribe(0, 1, func(row *history.Subscription) { row.Signature = "none" })
	s.event(1000, 1, "", to)
	r := s.request(5_000, 1, 1, to)
	s.one(t, history.Identity, "nothing asks for it")
	r.Signature = nil
	s.clean(t)
}
