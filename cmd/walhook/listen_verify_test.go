package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/outbox/receiver"
)

func macOf(key []byte, message string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(message))
	return mac.Sum(nil)
}

// stripe signs in Stripe's way.
func stripe(secret string, at time.Time) http.Header {
	t := fmt.Sprint(at.Unix())
	return http.Header{"Stripe-Signature": {"t=" + t + ",v1=" + hex.EncodeToString(macOf([]byte(secret), t+"."+vectorBody))}}
}

func TestJudgeFindsTheScheme(t *testing.T) {
	const standard = "whsec_plJ3nmyCDGBKInavdOK15jsl"
	key, err := base64.StdEncoding.DecodeString(standard[6:])
	require.NoError(t, err)
	at := fmt.Sprint(time.Now().Unix())
	standardHeader := http.Header{"Webhook-Id": {"m"}, "Webhook-Timestamp": {at},
		"Webhook-Signature": {"v1," + base64.StdEncoding.EncodeToString(macOf(key, "m."+at+"."+vectorBody))}}
	github := http.Header{"X-Hub-Signature-256": {vectorSignature}}
	for _, c := range []struct {
		scheme  string
		secrets []string
		header  http.Header
		found   receiver.Scheme
		want    verdict
	}{
		{"auto", []string{vectorSecret}, github, receiver.GitHub, signatureValid},
		{"auto", []string{"s3cret"}, stripe("s3cret", time.Now()), receiver.Stripe, signatureValid},
		{"auto", []string{"s3cret"}, stripe("s3cret", time.Now().Add(-time.Hour)), receiver.Stripe, signatureExpired},
		{"auto", []string{"other", "s3cret"}, stripe("s3cret", time.Now()), receiver.Stripe, signatureValid},
		{"auto", []string{"s3cret", standard}, standardHeader, receiver.Standard, signatureValid},
		{"auto", []string{"s3cret!"}, standardHeader, receiver.Standard, signatureInvalid},
		{"auto", []string{""}, standardHeader, receiver.Standard, signatureUnchecked},
		{"auto", []string{"s3cret"}, nil, "", signatureMissing},
		{"auto", nil, nil, "", signatureNone},
		{"standard", []string{standard}, standardHeader, receiver.Standard, signatureValid},
		{"stripe", []string{standard}, standardHeader, receiver.Stripe, signatureMissing},
		{"stripe", nil, standardHeader, receiver.Standard, signatureUnchecked},
	} {
		j, err := newJudge(c.scheme, c.secrets)
		require.NoError(t, err)
		got := j.of(c.header, []byte(vectorBody))
		require.Equal(t, []any{c.found, c.want}, []any{got.scheme, got.verdict}, "%+v", c)
		require.NotContains(t, got.explain(), "s3cret")
	}
}

func TestJudgeRefusesWhatIsOfNoUse(t *testing.T) {
	_, err := newJudge("md5", nil)
	require.ErrorIs(t, err, errUsage)
	require.ErrorContains(t, err, `--scheme "md5" is not known: use auto or one of [sha256`)
	_, err = newJudge("standard", []string{"canary!"})
	require.ErrorIs(t, err, errUsage)
	require.ErrorContains(t, err, "not base64")
	require.NotContains(t, err.Error(), "canary")
}
