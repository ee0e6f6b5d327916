// Package examples_test runs the examples of how to use the REST API against a relay, and holds them to what they print.
package examples_test

import (
	"encoding/json"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/outbox/receiver"
	"github.com/walhook/walhook/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// soon bounds what should happen at once; it is generous because the machine may be busy.
const soon = 30 * time.Second

// service is a relay with a token for it.
type service struct{ url, token string }

func start(t *testing.T) service {
	t.Helper()
	program := harness.BuildWalhook(t)
	env := []string{
		"DATABASE_URL=" + harness.Database(t), "WALHOOK_SLOT=walhook_" + uuid.NewString()[:8], "WALHOOK_LISTEN=127.0.0.1:0", "GORACE=atexit_sleep_ms=0",
	}
	for _, args := range [][]string{{"init"}, {"token", "create", "--name", "examples", "--scope", "manage,publish"}} {
		p := harness.StartProcess(t, program, env, args...)
		require.Zero(t, p.Wait(soon), p.Stderr())
		if args[0] == "token" {
			relay := harness.StartProcess(t, program, env, "run")
			var line struct{ Listen string }
			require.NoError(t, json.Unmarshal([]byte(relay.WaitFor("walhook runs", soon)), &line))
			return service{"http://" + line.Listen, strings.TrimSpace(p.Stdout())}
		}
	}
	panic("no token was made")
}

// run runs an example to its end and returns what it printed.
func (s service) run(t *testing.T, program string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	p := harness.StartProcess(t, program, []string{"WALHOOK_URL=" + s.url, "WALHOOK_TOKEN=" + s.token, "GORACE=atexit_sleep_ms=0"}, args...)
	code = p.Wait(2 * soon)
	if s.token != "" {
		require.NotContains(t, p.Stdout()+p.Stderr(), s.token)
	}
	return code, p.Stdout(), p.Stderr()
}

// verified waits for the test and the event that both examples send, and verifies them.
func verified(t *testing.T, received *harness.Collector) {
	t.Helper()
	v, err := receiver.NewVerifier(receiver.Options{Scheme: receiver.SHA256, Secrets: []string{"correct horse battery staple"}})
	require.NoError(t, err)
	requests := received.Wait(2, soon)
	require.Len(t, requests, 2)
	for _, r := range requests {
		require.Equal(t, "patient.created", r.Header.Get("X-Webhook-Event"))
		require.NoError(t, v.Verify(r.Header, r.Body))
	}
	require.Contains(t, string(requests[1].Body), "9007199254740993")
	require.Contains(t, string(requests[1].Body), "1200.50")
}

func TestCurl(t *testing.T) {
	t.Parallel()
	_, err := exec.LookPath("curl")
	require.NoError(t, err, "the example needs curl: apt-get install curl")
	s := start(t)
	received := harness.NewCollector(t)
	received.Answer(func(harness.Request) harness.Response { return harness.Response{Body: []byte("thank you")} })
	code, out, problems := s.run(t, "/bin/sh", "curl.sh", received.URL()+"/hooks")
	require.Zero(t, code, out+problems)
	require.Empty(t, problems)
	verified(t, received)
	require.Equal(t, "/hooks", received.Requests()[0].Path)
	for _, prints := range []string{
		`"name":"Cardiology"`, `{"items":[{"id":"`, `"succeeded":true`, `"event_type":"patient.created"`, `"response_body":"thank you"`, `"total":`, `"is_active":false`, `"max_retries":5`,
	} {
		require.Contains(t, out, prints)
	}

	code, _, problems = service{s.url, "whk_wrong"}.run(t, "/bin/sh", "curl.sh", received.URL())
	require.NotZero(t, code)
	require.Contains(t, problems, `"status":401`)
	code, _, problems = service{s.url, ""}.run(t, "/bin/sh", "curl.sh", received.URL())
	require.NotZero(t, code)
	require.Contains(t, problems, "walhook token create")
}

func TestClient(t *testing.T) {
	t.Parallel()
	s := start(t)
	program := harness.Build(t, "github.com/walhook/walhook/test/examples/client")
	received := harness.NewCollector(t)
	for range 4 { // so that there is more than one page
		s.create(t)
	}
	code, out, problems := s.run(t, program, received.URL())
	require.Zero(t, code, problems)
	verified(t, received)
	require.Regexp(t, `^created \S{36}
changed: max_retries 4 revision \d+
refused: 422 body.max_retries .*10.*
tested: succeeded true
published \S{36}
listed \S{36} Cardiology
(listed \S{36} other\n){4}$`, out)

	code, _, problems = service{s.url, "whk_wrong"}.run(t, program, received.URL())
	require.Equal(t, 1, code)
	require.Contains(t, problems, "create a webhook: 401: ")
	code, _, problems = s.run(t, program)
	require.Equal(t, 2, code)
	require.Contains(t, problems, "usage")
}

func (s service) create(t *testing.T) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/api/v1/webhooks/", strings.NewReader(`{"name": "other", "url": "https://example.com", "events": ["none"]}`))
	require.NoError(t, err)
	request.Header.Set("Authorization", "Bearer "+s.token)
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, http.StatusCreated, response.StatusCode)
}
