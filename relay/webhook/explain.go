package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"syscall"

	"github.com/tidwall/gjson"

	"github.com/walhook/walhook/relay/delivery"
)

// maxErrorText bounds an Outcome's Error, in bytes.
const maxErrorText = 300

// explain classifies why no answer came and says it for people. It goes by the types of errors; where
// net/http has none (a malformed answer, headers that are too large), by what is left.
func (e *endpoint) explain(ctx context.Context, err error) (delivery.Reason, string) {
	var timeout attemptTimeout
	var refused *RefusedError
	var proxy *proxyError
	var stream *streamError
	var dial *dialError
	var handshake *handshakeError
	var op *net.OpError
	switch cause := context.Cause(ctx); {
	case errors.As(cause, &timeout):
		return delivery.ReasonTimeout, timeout.Error()
	case cause != nil:
		return delivery.ReasonStopped, "the relay stopped before the attempt ended"
	case errors.As(err, &refused):
		return delivery.ReasonAddress, e.tell(refused.Error())
	case errors.As(err, &proxy):
		return delivery.ReasonConnect, e.tell("connect to the proxy: " + dialText(proxy.err))
	case errors.As(err, &dial):
		return delivery.ReasonConnect, e.tell("connect to " + e.request.URL.Host + ": " + dialText(dial.err))
	case errors.As(err, &handshake):
		return delivery.ReasonTLS, e.tell("TLS handshake with " + e.request.URL.Host + ": " + handshakeText(handshake.err))
	case errors.As(err, &op) && op.Op == "remote error":
		// In TLS 1.3 a server refuses a client only after the handshake has ended for the client.
		return delivery.ReasonTLS, e.tell("TLS alert from " + e.request.URL.Host + ": " + op.Err.Error())
	case errors.As(err, &stream):
		return delivery.ReasonReset, e.tell(stream.Error())
	case broken(err):
		return delivery.ReasonReset, "the connection broke before an answer: " + brokenText(err)
	case errors.Is(err, errNeverSent):
		return delivery.ReasonReset, errNeverSent.Error()
	}
	return delivery.ReasonProtocol, e.tell("the answer is not valid HTTP: " + innermost(err).Error())
}

// closedIdle is what net/http says when a connection ends before it has written anything on it: an unexported error
// without a type (errServerClosedIdle in net/http/transport.go).
const closedIdle = "http: server closed idle connection"

// broken reports that the connection ended, by its own type: an orderly end, a reset or a failed write.
func broken(err error) bool {
	var op *net.OpError
	return innermost(err).Error() == closedIdle || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.As(err, &op)
}

func brokenText(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	return "the server closed it"
}

// dialText leaves addresses out that tell more about the relay's network than about the receiver.
func dialText(err error) string {
	var dns *net.DNSError
	var errno syscall.Errno
	var timeout net.Error
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return "no such host"
	case errors.As(err, &dns):
		return "the name server did not answer"
	case errors.As(err, &errno):
		return errno.Error()
	case errors.As(err, &timeout) && timeout.Timeout():
		return "no connection within " + dialTimeout.String()
	}
	return innermost(err).Error()
}

func handshakeText(err error) string {
	var record tls.RecordHeaderError
	var verification *tls.CertificateVerificationError
	var timeout net.Error
	switch {
	case errors.As(err, &record):
		return "the server does not speak TLS on this port"
	case errors.As(err, &verification):
		return verification.Err.Error()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the server closed the connection"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "not finished within " + handshakeTimeout.String()
	}
	return innermost(err).Error()
}

// innermost unwraps err to its end, which drops url.Error's URL and net/http's prefixes.
func innermost(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}

// tell makes an error's text fit to be stored and shown.
func (e *endpoint) tell(text string) string {
	text = e.blot(cleanText([]byte(text), len(text)*3))
	return cut(text, maxErrorText)
}

// blotted stands where a secret stood.
const blotted = "[redacted]"

// blot removes the subscription's secrets from text that a receiver had a hand in: some answer with the
// request that they were sent.
func (e *endpoint) blot(text string) string {
	for _, secret := range e.hidden {
		text = strings.ReplaceAll(text, secret, blotted)
	}
	return text
}

// hiddenIn lists what of the settings must never be shown, the longest first, because one may contain
// another: the secrets, the values of headers that carry credentials, and the URL's query.
func hiddenIn(set *delivery.Settings) []string {
	hidden := []string{set.Secret.Reveal(), set.PreviousSecret.Reveal()}
	add := func(text string) {
		if len(text) >= minHidden {
			hidden = append(hidden, text)
		}
	}
	for _, secret := range hidden[:2] { // the key alone, without what tells its kind
		for _, prefix := range []string{prefixSymmetric, prefixPrivate} {
			add(strings.TrimPrefix(secret, prefix))
		}
	}
	for _, h := range set.Headers {
		if carriesCredentials(h.Name) {
			_, credentials, _ := strings.Cut(h.Value, " ") // "Bearer …", "Basic …"
			add(h.Value)
			add(credentials)
		}
	}
	if u, err := url.Parse(set.URL); err == nil {
		add(u.RawQuery)
		for _, values := range u.Query() { // a receiver may show them one by one
			for _, value := range values {
				add(value)
			}
		}
	}
	for _, text := range slices.Clone(hidden) { // and anything in JSON
		if quoted := string(gjson.AppendJSONString(nil, text)); len(quoted) > len(text)+2 {
			add(quoted[1 : len(quoted)-1])
		}
	}
	hidden = slices.DeleteFunc(hidden, func(text string) bool { return text == "" })
	slices.SortFunc(hidden, func(a, b string) int { return len(b) - len(a) })
	return hidden
}

// withoutBeginning drops the beginning of a secret from the end of a text that was cut off there. Three bytes of one
// give nothing away.
func (e *endpoint) withoutBeginning(text string) string {
	for _, secret := range e.hidden {
		for n := min(len(secret)-1, len(text)); n > 3; n-- {
			if strings.HasSuffix(text, secret[:n]) {
				return text[:len(text)-n]
			}
		}
	}
	return text
}

// minHidden is the length from which a header's value or a query is taken for a secret, in bytes. Anything
// shorter protects nothing and would blot out ordinary words.
const minHidden = 8

func carriesCredentials(name string) bool {
	name = strings.ToLower(name)
	return slices.ContainsFunc([]string{"auth", "cookie", "key", "token", "secret", "password"},
		func(part string) bool { return strings.Contains(name, part) })
}
