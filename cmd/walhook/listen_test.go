package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/outbox/receiver"
)

// GitHub publishes this vector for the same scheme
// (https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries).
const (
	vectorSecret    = "It's a Secret to Everybody"
	vectorBody      = "Hello, World!"
	vectorSignature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
)

func TestVerdicts(t *testing.T) {
	wrong := "sha256=" + strings.Repeat("0", 64)
	for _, c := range []struct {
		name, secret string
		headers      []string
		want         verdict
	}{
		{"right", vectorSecret, []string{vectorSignature}, signatureValid},
		{"upper case", vectorSecret, []string{"sha256=" + strings.ToUpper(vectorSignature[7:])}, signatureValid},
		{"rotation, second", vectorSecret, []string{wrong + ", " + vectorSignature}, signatureValid},
		{"rotation, first", vectorSecret, []string{vectorSignature + "," + wrong}, signatureValid},
		{"rotation, two lines", vectorSecret, []string{wrong, vectorSignature}, signatureValid},
		{"other digits", vectorSecret, []string{wrong}, signatureInvalid},
		{"other secret", "s3cret", []string{vectorSignature}, signatureInvalid},
		{"no prefix", vectorSecret, []string{vectorSignature[7:]}, signatureInvalid},
		{"another scheme", vectorSecret, []string{"sha1=" + vectorSignature[7:]}, signatureInvalid},
		{"cut", vectorSecret, []string{vectorSignature[:70]}, signatureInvalid},
		{"no hex", vectorSecret, []string{"sha256=" + strings.Repeat("x", 64)}, signatureInvalid},
		{"nothing behind the prefix", vectorSecret, []string{"sha256="}, signatureInvalid},
		{"empty", vectorSecret, []string{""}, signatureMissing},
		{"none", vectorSecret, nil, signatureMissing},
		{"no secret", "", []string{vectorSignature}, signatureUnchecked},
		{"neither", "", nil, signatureNone},
	} {
		t.Run(c.name, func(t *testing.T) {
			j, err := newJudge(string(receiver.SHA256), []string{c.secret})
			require.NoError(t, err)
			require.Equal(t, c.want, j.of(http.Header{"X-Webhook-Signature": c.headers}, []byte(vectorBody)).verdict)
		})
	}
}

func received(id, body string) *receivedRequest {
	r := httptest.NewRequest(http.MethodPost, "/hook?a=b", strings.NewReader(body))
	r.Header.Set("X-Webhook-ID", id)
	return &receivedRequest{at: time.Now(), request: r, body: []byte(body), judgement: judgement{verdict: signatureNone}, answer: answer{status: 200}}
}

func TestPrinterKeepsNumbersAndMarksDuplicates(t *testing.T) {
	const body = `{"event_data": {"amount":1250.50, "big":123456789012345678901234567890, "html":"<b>&"}}`
	for _, asJSON := range []bool{false, true} {
		t.Run(fmt.Sprint("json ", asJSON), func(t *testing.T) {
			var out bytes.Buffer
			p := newRequestPrinter(&out, asJSON)
			require.NoError(t, p.print(received("a", body)))
			require.NotContains(t, out.String(), "DUPLICATE")
			require.NotContains(t, out.String(), `"duplicate":true`)
			for _, verbatim := range []string{"1250.50", "123456789012345678901234567890", "<b>&", "/hook?a=b"} {
				require.Contains(t, out.String(), verbatim)
			}
			out.Reset()
			require.NoError(t, p.print(received("a", body)))
			require.Regexp(t, `DUPLICATE|"duplicate":true`, out.String())
			out.Reset()
			require.NoError(t, p.print(received("", body)))
			require.NoError(t, p.print(received("", body)))
			require.NotRegexp(t, `DUPLICATE|"duplicate":true`, out.String(), "requests without an id are no duplicates of each other")
		})
	}
}

func TestPrinterRemembersBoundedly(t *testing.T) {
	p := newRequestPrinter(nil, true)
	require.False(t, p.seen("first"))
	for i := range rememberedIDs {
		require.False(t, p.seen(fmt.Sprint(i)))
	}
	require.True(t, p.seen("first"), "the generation before is remembered")
	for i := range 2 * rememberedIDs {
		p.seen(fmt.Sprint("more", i))
	}
	require.LessOrEqual(t, len(p.ids)+len(p.older), 2*rememberedIDs)
}

// What a stranger sends must not steer the terminal.
func TestPrinterDisarmsControlCharacters(t *testing.T) {
	var out bytes.Buffer
	p := newRequestPrinter(&out, false)
	for _, body := range []string{"\x1b[2Jgone\r\u202e", "{\"a\":\"\u009b2J\"}", "\xff\xfe"} {
		require.NoError(t, p.print(received("\x1b]0;title\a", body)))
	}
	require.NotRegexp(t, `[\x00-\x08\x0b-\x1f\x7f-\x{9f}\x{202e}]`, out.String())
	require.Contains(t, out.String(), `\x1b[2Jgone`)
	require.Contains(t, printable("tab\tand\nline, é 漢"), "tab\tand\nline, é 漢")
}

// brokenPipe fails like standard output whose reader has gone.
type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestListenEndsWhenNobodyReads(t *testing.T) {
	l, err := newListener(&app{stdout: brokenPipe{}, stderr: &bytes.Buffer{}}, listenOptions{status: 204, scheme: schemeAuto})
	require.NoError(t, err)
	w := httptest.NewRecorder()
	l.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", strings.NewReader("{}")))
	require.Equal(t, 204, w.Code, "the sender is not to blame")
	<-l.done
	require.ErrorContains(t, l.ended, "broken pipe")
	w = httptest.NewRecorder()
	l.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", strings.NewReader("{}")))
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
}

func TestForwardingDropsWhatBelongsToTheConnection(t *testing.T) {
	got := endToEnd(http.Header{"Connection": {"close, X-Hop"}, "X-Hop": {"1"}, "Te": {"trailers"}, "Transfer-Encoding": {"chunked"},
		"X-Webhook-Signature": {"sha256=ab"}, "X-Many": {"1", "2"}})
	require.Equal(t, http.Header{"X-Webhook-Signature": {"sha256=ab"}, "X-Many": {"1", "2"}}, got)
}
