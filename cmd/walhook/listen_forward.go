package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// forwardTimeout is the longest that a subscription may allow an attempt.
const forwardTimeout = 300 * time.Second

// forwardMaxAnswer bounds what is passed back, in bytes; the relay keeps 10 KB of it.
const forwardMaxAnswer = 10 << 20

// answer is what the sender gets.
type answer struct {
	status int
	header http.Header
	body   []byte
	err    error // why forwarding went wrong; then the status is 502
}

func (a *answer) write(w http.ResponseWriter) {
	for name, values := range a.header {
		w.Header()[name] = values
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body) // an error means that the sender has gone
}

// forwardTarget reads --forward-to.
func forwardTarget(text string) (*url.URL, error) {
	target, err := url.Parse(text)
	if err != nil || target.Host == "" || target.Scheme != "http" && target.Scheme != "https" {
		return nil, fmt.Errorf("%w: --forward-to %s is no http or https URL: write http://host:port/path", errUsage, quote(text))
	}
	return target, nil
}

// forwarder passes requests on to one URL.
type forwarder struct {
	target *url.URL
	client *http.Client
}

// newForwarder neither follows redirects nor decodes answers: the sender is to see what came back.
func newForwarder(target *url.URL) *forwarder {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableCompression = true
	return &forwarder{target: target, client: &http.Client{
		Transport: transport, Timeout: forwardTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func (f *forwarder) close() { f.client.CloseIdleConnections() }

// pass sends the same method, headers and body to the target and returns its answer.
func (f *forwarder) pass(ctx context.Context, method string, header http.Header, body []byte) answer {
	response, err := f.send(ctx, method, header, body)
	if err != nil {
		return answer{status: http.StatusBadGateway, err: err, body: []byte("forward: " + err.Error() + "\n")}
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(response.Body, forwardMaxAnswer+1))
	if err == nil && len(text) > forwardMaxAnswer {
		err = fmt.Errorf("the answer has more than %d bytes", forwardMaxAnswer)
	}
	if err != nil {
		return answer{status: http.StatusBadGateway, err: err, body: []byte("forward: " + err.Error() + "\n")}
	}
	return answer{status: response.StatusCode, header: endToEnd(response.Header), body: text}
}

func (f *forwarder) send(ctx context.Context, method string, header http.Header, body []byte) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, f.target.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header = endToEnd(header)
	if request.Header.Get("User-Agent") == "" {
		request.Header["User-Agent"] = []string{""} // or the client would add its own
	}
	return f.client.Do(request)
}

// endToEnd copies the headers without those that belong to the connection (RFC 9110, section 7.6.1).
func endToEnd(header http.Header) http.Header {
	drop := []string{"Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Content-Length"}
	for _, list := range header.Values("Connection") {
		for name := range strings.SplitSeq(list, ",") {
			drop = append(drop, http.CanonicalHeaderKey(strings.TrimSpace(name)))
		}
	}
	kept := make(http.Header, len(header))
	for name, values := range header {
		if !slices.Contains(drop, name) {
			kept[name] = values
		}
	}
	return kept
}
