package acceptance_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/outbox/receiver"
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
	l.WaitFor("FORWARDING FAILED, the sender was answered 502", soon)
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

// ask sends a request without a body and returns the answer's status and headers.
func (l *listening) ask(method string, header http.Header) (int, http.Header) {
	l.t.Helper()
	request, err := http.NewRequestWithContext(l.t.Context(), method, l.url+"/hook", nil)
	require.NoError(l.t, err)
	request.Header = header
	client := http.Client{Timeout: soon}
	defer client.CloseIdleConnections()
	response, err := client.Do(request)
	require.NoError(l.t, err)
	require.NoError(l.t, response.Body.Close())
	return response.StatusCode, response.Header
}

func TestListenKnowsEveryScheme(t *testing.T) {
	l := listen(t, "--secret", "old", "--secret", "s3cret", "--json", "--count", "3")
	body := []byte(`{"n":1}`)
	at := fmt.Sprint(time.Now().Unix())
	digits := strings.TrimPrefix(signature("s3cret", body), "sha256=")
	mac := func(message string) string {
		return strings.TrimPrefix(signature("s3cret", []byte(message)), "sha256=")
	}
	l.post(body, "X-Hub-Signature-256", "sha256="+digits, "X-GitHub-Delivery", "gh-1", "X-GitHub-Event", "push")
	l.post(body, "Stripe-Signature", "t="+at+",v1="+mac(at+"."+string(body)))
	l.post(body, "X-Slack-Request-Timestamp", at, "X-Slack-Signature", "v0="+mac("v0:"+at+":"+string(body)))
	require.Zero(t, l.Wait(soon))
	for i, scheme := range []string{"github", "stripe", "slack"} {
		require.Contains(t, strings.Split(l.Stdout(), "\n")[i], `"signature":"valid","scheme":"`+scheme+`"`)
	}
	require.Contains(t, l.Stdout(), `"event":"push","id":"gh-1"`)
	require.NotContains(t, l.Stdout(), "s3cret")

	one := listen(t, "--secret", "s3cret", "--scheme", "stripe", "--count", "2")
	one.post(body, "X-Hub-Signature-256", "sha256="+digits)
	one.post(body, "Stripe-Signature", "t=1,v1="+mac("1."+string(body)))
	require.Zero(t, one.Wait(soon))
	require.Contains(t, one.Stdout(), "signature MISSING: signature missing: the request has no Stripe-Signature header")
	require.Contains(t, one.Stdout(), "signature EXPIRED")
	for _, args := range [][]string{{"--scheme", "md5"}, {"--scheme", "standard", "--secret", "canary!"}, {"--replay", "nowhere"}, {"--replay", "nowhere", "--forward-to", "http://127.0.0.1:1"}} {
		r := run(t, nil, append([]string{"listen"}, args...)...)
		require.Equal(t, 2, r.code, r.stderr)
		require.NotContains(t, r.stderr, "canary")
	}
}

func TestListenAnswersWhoAsksFirst(t *testing.T) {
	l := listen(t, "--status", "204")
	status, header := l.ask(http.MethodOptions, http.Header{"Webhook-Request-Origin": {"events.example.com"}})
	require.Equal(t, []any{200, "events.example.com"}, []any{status, header.Get("WebHook-Allowed-Origin")})
	status, _, answer := l.post([]byte(`{"type":"url_verification","challenge":"3eZbrw1a"}`))
	require.Equal(t, []any{200, "3eZbrw1a"}, []any{status, answer})
	status, _ = l.ask(http.MethodOptions, nil)
	require.Equal(t, 204, status)

	behind := harness.NewCollector(t)
	behind.Script(harness.Response{Status: 403})
	through := listen(t, "--forward-to", behind.URL())
	status, _ = through.ask(http.MethodOptions, http.Header{"Webhook-Request-Origin": {"events.example.com"}})
	require.Equal(t, 403, status, "what is forwarded to answers for itself")
}

// What was saved is sent again as it came, in the same order.
func TestListenSavesAndReplays(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "for it")
	l := listen(t, "--save", dir, "--count", "2")
	body := []byte(`{"n": 1.50}`)
	l.post(body, "X-Webhook-ID", "d-1", "X-Webhook-Event", "a.b", "X-Webhook-Signature", signature("s3cret", body), "User-Agent", "walhook/9")
	binary := []byte("\xff\x00")
	l.post(binary, "X-Webhook-ID", "d-2")
	require.Zero(t, l.Wait(soon))
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	require.NoError(t, err)
	require.Len(t, files, 2)
	var saved struct {
		Method, Path, Body string
		Headers            http.Header
	}
	text, err := os.ReadFile(files[0])
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &saved))
	require.Equal(t, []string{"POST", "/hook?x=1", string(body), "d-1"}, []string{saved.Method, saved.Path, saved.Body, saved.Headers.Get("X-Webhook-ID")})

	behind := harness.NewCollector(t)
	behind.Script(harness.Response{Status: 202}, harness.Response{Status: 418, Body: []byte("short and stout")})
	r := run(t, nil, "listen", "--replay", dir, "--forward-to", behind.URL()+"/app")
	require.Equal(t, 1, r.code, "one was refused")
	require.Contains(t, r.stderr, "1 of 2 requests were not answered 200 to 299")
	require.Regexp(t, `(?s)-000001\.json  POST a\.b  id d-1  answered 202\n.*-000002\.json  POST -  id d-2  answered 418\n  short and stout\n`, r.stdout)
	got := behind.Wait(2, soon)
	require.Equal(t, []string{"/app", "d-1", signature("s3cret", body), "walhook/9", string(body)},
		[]string{got[0].Path, got[0].ID(), got[0].Header.Get("X-Webhook-Signature"), got[0].Header.Get("User-Agent"), string(got[0].Body)})
	require.Equal(t, binary, got[1].Body)

	behind.Script(harness.Response{Status: 200})
	r = run(t, nil, "listen", "--replay", files[1], "--forward-to", behind.URL(), "--json")
	require.Zero(t, r.code, r.stderr)
	require.Contains(t, r.stdout, `"method":"POST","event":"","id":"d-2","answered":200`)
	broken := filepath.Join(t.TempDir(), "broken.json")
	require.NoError(t, os.WriteFile(broken, []byte("{}"), 0o600))
	r = run(t, nil, "listen", "--replay", broken, "--forward-to", behind.URL())
	require.Equal(t, 1, r.code)
	require.Contains(t, r.stdout, "it has no method")
}

// What the relay sends in every scheme and format is understood by the package for receivers, as one event and in
// batches.
func TestReceiverUnderstandsTheRelay(t *testing.T) {
	db := newDatabase(t)
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	public := "whpk_" + base64.StdEncoding.EncodeToString(private.Public().(ed25519.PublicKey))
	secrets := map[receiver.Scheme]string{
		receiver.Standard:        "whsec_" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 24)),
		receiver.StandardEd25519: "whsk_" + base64.StdEncoding.EncodeToString(private),
	}
	got := map[string]chan receiver.Event{}
	subscribe := func(scheme receiver.Scheme, format string, set ...string) {
		secret := cmp.Or(secrets[scheme], "a secret that is long enough")
		key := secret
		if scheme == receiver.StandardEd25519 {
			key = public
		}
		events := make(chan receiver.Event, 10)
		name := fmt.Sprint(scheme, " ", format, " ", set)
		got[name] = events
		address := receive(t, scheme, key, events)
		db.subscribe(address, append(set, "signature", "'"+string(scheme)+"'", "payload_format", "'"+format+"'", "secret", "'"+secret+"'")...)
	}
	for _, scheme := range []receiver.Scheme{receiver.SHA256, receiver.StandardEd25519, receiver.GitHub, receiver.Stripe, receiver.Shopify, receiver.Slack} {
		subscribe(scheme, "envelope")
	}
	subscribe(receiver.SHA256, "envelope", "payload_version", "1")
	for _, format := range []string{"envelope", "standard", "cloudevents", "raw"} {
		subscribe(receiver.Standard, format)
		subscribe(receiver.Standard, format, "batch_size", "2", "batch_wait", "'1 minute'")
	}
	subscribe(receiver.Standard, "cloudevents-binary")
	db.start()
	db.do(`SELECT outbox.publish('a.b', '{"n": 1.50}', key => 'k', tenant => '', correlation_id => 'c'), outbox.publish('a.b', '{"n": 1.50}', key => 'k', correlation_id => 'c')`)
	for name, events := range got {
		ids := map[string]bool{}
		for range 2 {
			select {
			case e := <-events:
				require.Equal(t, []any{"a.b", `{"n": 1.50}`, 1}, []any{e.Type, string(e.Data), e.Attempt}, name)
				ids[e.ID] = true
			case <-time.After(soon):
				t.Fatalf("waited in vain for %s", name)
			}
		}
		require.Len(t, ids, 2, "%s: every delivery has an id of its own", name)
	}
}

// receive is a receiver that verifies and hands every event over once.
func receive(t *testing.T, scheme receiver.Scheme, secret string, events chan<- receiver.Event) string {
	t.Helper()
	verifier, err := receiver.NewVerifier(receiver.Options{Scheme: scheme, Secrets: []string{secret}})
	require.NoError(t, err)
	manager := receiver.NewManager(receiver.NewMemory(100, time.Hour))
	manager.On("a.*", "hand-over", func(_ context.Context, e receiver.Event) error { events <- e; return nil })
	server := httptest.NewServer(receiver.Endpoint{Verifier: verifier}.Middleware(manager))
	t.Cleanup(server.Close)
	return server.URL
}
