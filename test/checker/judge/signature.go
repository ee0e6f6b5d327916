package judge

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/walhook/walhook/test/checker/history"
)

// A request may have been made with settings that are older than its arrival by what an attempt takes, and younger by
// what the clocks differ.
const (
	older   = 30 * time.Second
	younger = 2 * time.Second
)

// settingsFlaw checks where the request went, what shape it has and how it is signed against what the subscription was
// when it was made: never what was changed before the event.
func (j *judgement) settingsFlaw(p *pair, r *arrival) string {
	rows := p.to.alive(p, r.ArrivedAt.Add(-older), r.ArrivedAt.Add(younger))
	there := slices.DeleteFunc(slices.Clone(rows), func(row *history.Subscription) bool {
		u, err := url.Parse(row.URL)
		return err != nil || u.Path != r.Path
	})
	shaped := slices.ContainsFunc(rows, func(row *history.Subscription) bool {
		return r.in.several() || row.BatchSize > 1 == (r.Batch != "")
	})
	switch {
	case len(there) == 0:
		return fmt.Sprintf("it went to %s, where no URL of the %d that were valid leads", r.Path, len(rows))
	case !shaped:
		return fmt.Sprintf("X-Webhook-Batch is %q, and batch_size %d", r.Batch, rows[0].BatchSize)
	}
	return j.signatureFlaw(r.in, rows)
}

// signatureFlaw checks that every secret that was valid when the request was made has signed it, and no other.
func (j *judgement) signatureFlaw(q *request, rows []*history.Subscription) string {
	flaw := ""
	for _, row := range rows {
		for _, secrets := range j.validSecrets(row, q.ArrivedAt) {
			if flaw = signedBy(q, row.Signature, secrets); flaw == "" {
				return ""
			}
		}
	}
	if len(rows) > 1 {
		flaw = fmt.Sprintf("it is signed as by none of the %d settings that were valid; by the last of them: %s", len(rows), flaw)
	}
	return flaw
}

// validSecrets are those that a request may have been signed with which arrived at a moment: the current one and, until
// it expires, the previous one. Just after that it may have been made with either.
func (j *judgement) validSecrets(row *history.Subscription, arrived time.Time) [][]string {
	var current []string
	if row.Secret != "" {
		current = []string{row.Secret}
	}
	expires := row.PreviousExpires
	switch both := append(slices.Clone(current), row.PreviousSecret); {
	case row.Signature == "none":
		return [][]string{nil}
	case row.PreviousSecret == "":
		return [][]string{current}
	case expires.IsZero() || expires.After(arrived.Add(clockSlack)):
		return [][]string{both}
	case expires.After(arrived.Add(-j.onTheWay(arrived))):
		return [][]string{current, both}
	}
	return [][]string{current}
}

// onTheWay is how long the request that arrived at a moment may have taken from being signed.
func (j *judgement) onTheWay(arrived time.Time) time.Duration {
	if j.faults.any(arrived.Add(-noticing), arrived, receiverLink, paused) {
		return noticing
	}
	return onTheWire
}

// scheme is one way of signing, as the contract describes it.
type scheme struct {
	header  string
	before  func(q *request) string // what is signed before the body
	prefix  string                  // of each signature
	base64  bool
	between string // signatures; empty: there is one only
	extra   func(q *request) map[string]string
}

func (q *request) stamp(header string) string { return q.Signature[header] }

// stripeTime is what Stripe-Signature says of the time.
func (q *request) stripeTime() string {
	stamp, _, _ := strings.Cut(strings.TrimPrefix(q.Signature["Stripe-Signature"], "t="), ",")
	return stamp
}

func nothing(*request) string { return "" }

var schemes = map[string]scheme{
	"sha256": {header: "X-Webhook-Signature", before: nothing, prefix: "sha256=", between: ", "},
	"standard": {header: "Webhook-Signature", prefix: "v1,", base64: true, between: " ",
		before: func(q *request) string { return q.Delivery + "." + q.stamp("Webhook-Timestamp") + "." },
		extra: func(q *request) map[string]string {
			return map[string]string{"Webhook-Id": q.Delivery, "Webhook-Timestamp": q.stamp("Webhook-Timestamp")}
		}},
	"github": {header: "X-Hub-Signature-256", before: nothing, prefix: "sha256=", extra: func(q *request) map[string]string {
		return map[string]string{"X-Github-Event": q.Type, "X-Github-Delivery": q.Delivery}
	}},
	"stripe": {header: "Stripe-Signature", prefix: "v1=", between: ",",
		before: func(q *request) string { return q.stripeTime() + "." }},
	"shopify": {header: "X-Shopify-Hmac-Sha256", before: nothing, base64: true, extra: func(q *request) map[string]string {
		return map[string]string{"X-Shopify-Topic": q.Type, "X-Shopify-Webhook-Id": q.Delivery}
	}},
	"slack": {header: "X-Slack-Signature", prefix: "v0=",
		before: func(q *request) string { return "v0:" + q.stamp("X-Slack-Request-Timestamp") + ":" },
		extra: func(q *request) map[string]string {
			return map[string]string{"X-Slack-Request-Timestamp": q.stamp("X-Slack-Request-Timestamp")}
		}},
}

// sign makes one signature. A standard secret is base64 behind whsec_.
func (s *scheme) sign(name, secret string, q *request) string {
	key := []byte(secret)
	if name == "standard" {
		key, _ = base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(s.before(q)))
	mac.Write(q.Body)
	if s.base64 {
		return s.prefix + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	}
	return s.prefix + hex.EncodeToString(mac.Sum(nil))
}

// signedBy compares the headers with those that the secrets make. Where a vendor's verifiers take one signature only,
// two secrets take turns, the current one on odd attempts, and X-Webhook-Signature has both.
func signedBy(q *request, name string, secrets []string) string {
	if name == "none" {
		return compareHeaders(q, nil)
	}
	s, known := schemes[name]
	if !known {
		return fmt.Sprintf("its scheme is %q, which the judge does not know", name)
	}
	want := map[string]string{}
	if s.extra != nil {
		want = s.extra(q)
	}
	turn := secrets
	if s.between == "" && len(secrets) > 1 {
		turn = secrets[(q.Attempt+1)%2:][:1]
		plain := schemes["sha256"]
		want[plain.header] = plain.all("sha256", secrets, q)
	}
	if len(turn) > 0 {
		want[s.header] = s.all(name, turn, q)
	}
	if flaw := timeFlaw(q); flaw != "" {
		return flaw
	}
	return compareHeaders(q, want)
}

// all joins the signatures of all secrets.
func (s *scheme) all(name string, secrets []string, q *request) string {
	texts := make([]string, len(secrets))
	for i, secret := range secrets {
		texts[i] = s.sign(name, secret, q)
	}
	text := strings.Join(texts, s.between)
	if name == "stripe" {
		return "t=" + q.stripeTime() + "," + text
	}
	return text
}

// timeFlaw checks the time that a scheme signs: that of the attempt, in seconds.
func timeFlaw(q *request) string {
	for _, text := range []string{q.stamp("Webhook-Timestamp"), q.stamp("X-Slack-Request-Timestamp"), q.stripeTime()} {
		if text == "" {
			continue
		}
		seconds, err := strconv.ParseInt(text, 10, 64)
		at := time.Unix(seconds, 0)
		if err != nil || at.Before(q.ArrivedAt.Add(-older)) || at.After(q.ArrivedAt.Add(younger)) {
			return fmt.Sprintf("the time that is signed is %q, and it arrived at %s", text, q.ArrivedAt.Format(time.RFC3339Nano))
		}
	}
	return ""
}

// compareHeaders says which header is not what it should be.
func compareHeaders(q *request, want map[string]string) string {
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if q.Signature[name] == "" {
			return fmt.Sprintf("%s is missing: it is not signed as it should be", name)
		}
		if got := q.Signature[name]; got != want[name] {
			return fmt.Sprintf("%s is %q, and the secrets that were valid make %q", name, got, want[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(q.Signature)) {
		if _, known := want[name]; !known {
			return fmt.Sprintf("%s is %q, and nothing asks for it", name, q.Signature[name])
		}
	}
	return ""
}
