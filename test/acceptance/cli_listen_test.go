package acceptance_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// listening is walhook listen, ready to receive.
type listening struct {
	*harness.Process
	t   *testing.T
	url string
}

func listen(t *testing.T, args ...string) *listening {
	t.Helper()
	p := harness.StartProcess(t, harness.BuildWalhook(t), []string{"GORACE=atexit_sleep_ms=0"}, append([]string{"listen", "--addr", "127.0.0.1:0"}, args...)...)
	_, url, _ := strings.Cut(p.WaitFor("listening on ", soon), "listening on ")
	return &listening{Process: p, t: t, url: url}
}

// post sends a body with headers in turn and returns status, headers and body of the answer.
func (l *listening) post(body []byte, headers ...string) (int, http.Header, string) {
	l.t.Helper()
	request, err := http.NewRequestWithContext(l.t.Context(), http.MethodPost, l.url+"/hook?x=1", bytes.NewReader(body))
	require.NoError(l.t, err)
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	client := http.Client{Timeout: soon}
	defer client.CloseIdleConnections()
	response, err := client.Do(request)
	require.NoError(l.t, err)
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	require.NoError(l.t, err)
	return response.StatusCode, response.Header, string(answer)
}

func signature(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

func TestListenVerifiesAndPrints(t *testing.T) {
	l := listen(t, "--secret", "s3cret", "--status", "202", "--count", "4")
	body := []byte(`{"event_type":"payment.received","event_data":{"amount":1250.50}}`)
	for _, sent := range []string{signature("s3cret", body), signature("other", body) + ", " + signature("s3cret", body), signature("other", body)} {
		status, _, _ := l.post(body, "X-Webhook-Event", "payment.received", "X-Webhook-ID", "d-1", "X-Webhook-Attempt", "2", "X-Webhook-Signature", sent)
		require.Equal(t, 202, status)
	}
	l.post([]byte("no JSON"))
	require.Zero(t, l.Wait(soon), "it ends after --count")
	blocks := strings.Split(strings.TrimSpace(l.Stdout()), "\n\n")
	require.Len(t, blocks, 4)
	require.Regexp(t, `^\d\d:\d\d:\d\d\.\d{3}  POST /hook\?x=1  payment\.received\n  id d-1, attempt 2\n  signature valid\n  answered 202\n`, blocks[0])
	require.Contains(t, blocks[0], `"amount": 1250.50`)
	require.Contains(t, blocks[1], "signature valid")
	require.Contains(t, blocks[1], "DUPLICATE")
	require.Contains(t, blocks[2], "signature INVALID")
	require.Contains(t, blocks[3], "signature MISSING")
	require.Contains(t, blocks[3], "no JSON")
}

func TestListenPrintsObjects(t *testing.T) {
	l := listen(t, "--json")
	l.post([]byte(`{"n":1.50}`), "X-Webhook-Event", "a.b", "X-Webhook-ID", "d-1", "X-Webhook-Attempt", "1")
	l.post([]byte("<text>"), "X-Webhook-ID", "d-1", "X-Webhook-Signature", "sha256=00")
	l.Signal(syscall.SIGINT)
	require.Zero(t, l.Wait(soon))
	type line struct {
		Method, Path, Event, ID, Attempt, Signature string
		Duplicate                                   bool
		Answered                                    int
		Headers                                     http.Header
		Body                                        json.RawMessage
		BodyText                                    string `json:"body_text"`
	}
	var lines []line
	for text := range strings.Lines(l.Stdout()) {
		var one line
		require.NoError(t, json.Unmarshal([]byte(text), &one), text)
		lines = append(lines, one)
	}
	require.Len(t, lines, 2)
	require.Equal(t, []string{"POST", "/hook?x=1", "a.b", "d-1", "1", "unsigned", `{"n":1.50}`},
		[]string{lines[0].Method, lines[0].Path, lines[0].Event, lines[0].ID, lines[0].Attempt, lines[0].Signature, string(lines[0].Body)})
	require.False(t, lines[0].Duplicate)
	require.Equal(t, 200, lines[0].Answered)
	require.True(t, lines[1].Duplicate)
	require.Equal(t, "unchecked", lines[1].Signature)
	require.Equal(t, "<text>", lines[1].BodyText)
}

func TestListenForwards(t *testing.T) {
	behind := harness.NewCollector(t)
	behind.Script(harness.Response{Status: 418, Header: http.Header{"X-Answer": {"tea"}}, Body: []byte("short and stout")},
		harness.Response{Status: 307, Header: http.Header{"Location": {behind.URL() + "/elsewhere"}}})
	l := listen(t, "--secret", "s3cret", "--forward-to", behind.URL()+"/app?y=2")
	body := []byte(`{"n": 1.50}`)
	status, header, answer := l.post(body, "X-Webhook-ID", "d-1", "X-Webhook-Signature", signature("s3cret", body), "User-Agent", "walhook/9", "Content-Type", "application/json")
	require.Equal(t, []any{418, "tea", "short and stout"}, []any{status, header.Get("X-Answer"), answer})
	got := behind.Wait(1, soon)[0]
	require.Equal(t, []string{"POST", "/app", "y=2", "d-1", "walhook/9", "application/json", signature("s3cret", body), string(body)},
		[]string{got.Method, got.Path, got.Query, got.ID(), got.Header.Get("User-Agent"), got.Header.Get("Content-Type"),
			got.Header.Get("X-Webhook-Signature"), string(got.Body)})
	l.WaitFor("answered 418", soon)

	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, l.url, nil)
	require.NoError(t, err)
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	response, err := transport.RoundTrip(request)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, 307, response.StatusCode, "a redirect is passed back, not followed")
	require.Equal(t, 2, behind.Count())
}

func TestListenForwardingToNobody(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := free.Addr().String()
	require.NoError(t, free.Close())
	l := listen(t, "--forward-to", "http://"+address)
	status, _, answer := l.post([]byte("{}"))
	require.Equal(t, http.StatusBadGateway, status)
	require.Contains(t, answer, address)
	l.WaitFor("answered 502, because forwarding failed", soon)
}

func TestListenBoundsBodies(t *testing.T) {
	l := listen(t, "--json", "--count", "1")
	status, _, _ := l.post(make([]byte, 11<<20))
	require.Equal(t, http.StatusRequestEntityTooLarge, status)
	l.WaitFor("refused a request of more than", soon)
	body := append(append([]byte(`{"s":"`), bytes.Repeat([]byte("x"), 10<<20)...), `"}`...)
	status, _, _ = l.post(body)
	require.Equal(t, 200, status, "the largest payload fits")
	require.Zero(t, l.Wait(soon))
	require.Greater(t, len(l.Stdout()), 10<<20)
}

func TestListenAddressTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = taken.Close() }()
	r := run(t, nil, "listen", "--addr", taken.Addr().String())
	require.Equal(t, 1, r.code)
	require.Contains(t, r.stderr, taken.Addr().String())
}

// The relay's own deliveries, while a secret is being rotated and after a first refusal.
func TestListenUnderstandsTheRelay(t *testing.T) {
	db := newDatabase(t)
	old := listen(t, "--secret", "old", "--status", "500", "--json")
	db.subscribe(old.url, "secret", "'new'", "previous_secret", "'old'", "previous_secret_expires_at", "now() + interval '1 hour'",
		"retry_delay", "'10 ms'")
	db.start()
	run(t, db.env(), "trigger", "payment.received", "--data", `{"amount": 1.10}`)
	attempt := func(n string) (line struct {
		Event, Signature string
		Duplicate        bool
		Body             json.RawMessage
	}) {
		require.NoError(t, json.Unmarshal([]byte(old.WaitFor(`"attempt":"`+n+`"`, 20*time.Second)), &line))
		return line
	}
	first, second := attempt("1"), attempt("2")
	require.Equal(t, "payment.received", first.Event)
	require.Equal(t, []string{"valid", "valid"}, []string{first.Signature, second.Signature}, "both secrets sign during a rotation")
	require.Contains(t, string(first.Body), `"amount":1.10`)
	require.False(t, first.Duplicate)
	require.True(t, second.Duplicate)
}
