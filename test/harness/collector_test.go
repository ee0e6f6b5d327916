package harness_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// post sends a delivery and returns the response, whose body the test's end closes.
func post(t *testing.T, c *harness.Collector, id, body string) (*http.Response, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.URL()+"/hook?a=b", strings.NewReader(body))
	require.NoError(t, err)
	request.Header.Set("X-Webhook-ID", id)
	response, err := http.DefaultClient.Do(request)
	if err == nil {
		t.Cleanup(func() { _ = response.Body.Close() })
	}
	return response, err
}

func status(t *testing.T, c *harness.Collector, id string) int {
	t.Helper()
	response, err := post(t, c, id, "")
	require.NoError(t, err)
	return response.StatusCode
}

func TestCollectorRecords(t *testing.T) {
	c := harness.NewCollector(t)
	before := time.Now()
	require.Equal(t, 200, status(t, c, "a"))
	_, err := post(t, c, "b", `{"n": 1.0}`)
	require.NoError(t, err)
	require.Equal(t, 200, status(t, c, "a"))

	require.Len(t, c.Wait(3, time.Minute), 3)
	require.Equal(t, 3, c.Count())
	groups := c.ByID()
	require.Len(t, groups["a"], 2)
	b := groups["b"][0]
	require.Equal(t, []string{"POST", "/hook", "a=b", "b", `{"n": 1.0}`}, []string{b.Method, b.Path, b.Query, b.ID(), string(b.Body)})
	require.WithinRange(t, b.At, before, time.Now())
}

func TestCollectorDiscardsBodies(t *testing.T) {
	c := harness.NewCollector(t, harness.DiscardBodies())
	_, err := post(t, c, "a", strings.Repeat("x", 1<<20))
	require.NoError(t, err)
	require.Nil(t, c.Requests()[0].Body)
}

func TestCollectorFollowsItsScript(t *testing.T) {
	c := harness.NewCollector(t)
	c.Script(
		harness.Response{Status: 503, Header: http.Header{"Retry-After": {"7"}}, Body: []byte("busy")},
		harness.Response{Status: 410},
	)
	response, err := post(t, c, "a", "")
	require.NoError(t, err)
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Equal(t, []string{"503 Service Unavailable", "7", "busy"}, []string{response.Status, response.Header.Get("Retry-After"), string(body)})
	require.Equal(t, 410, status(t, c, "a"))
	require.Equal(t, 200, status(t, c, "a"))

	c.Answer(func(r harness.Request) harness.Response {
		if r.ID() == "bad" {
			return harness.Response{Status: 500}
		}
		return harness.Response{}
	})
	c.Script(harness.Response{Status: 201})
	require.Equal(t, []int{201, 500, 200}, []int{status(t, c, "bad"), status(t, c, "bad"), status(t, c, "good")})
}

func TestCollectorDelays(t *testing.T) {
	c := harness.NewCollector(t)
	open := make(chan struct{})
	c.Script(harness.Response{Status: 202, Delay: open}, harness.Response{Delay: make(chan struct{})})
	answered := make(chan int, 1)
	go func() { answered <- status(t, c, "a") }()
	c.Wait(1, time.Minute)
	require.Empty(t, answered)
	close(open)
	require.Equal(t, 202, <-answered)

	// The second delay never ends: the client leaves, or else the test's end lets go of it.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.URL(), nil)
	require.NoError(t, err)
	_, err = http.DefaultClient.Do(request)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestCollectorEndsWithATestThatIsNotAnswered(t *testing.T) {
	done := make(chan error, 1)
	t.Run("test", func(t *testing.T) {
		c := harness.NewCollector(t)
		c.Script(harness.Response{Delay: make(chan struct{})})
		request, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), http.MethodPost, c.URL(), nil)
		require.NoError(t, err)
		go func() {
			_, err := http.DefaultClient.Do(request)
			done <- err
		}()
		c.Wait(1, time.Minute)
	})
	require.Error(t, <-done)
}

func TestCollectorResets(t *testing.T) {
	c := harness.NewCollector(t)
	c.Script(harness.Response{Reset: true})
	_, err := post(t, c, "a", strings.Repeat("x", 1<<20))
	require.ErrorIs(t, err, syscall.ECONNRESET)
	require.Len(t, c.Requests()[0].Body, 1<<20)
}

func TestCollectorNeverEnds(t *testing.T) {
	c := harness.NewCollector(t)
	c.Script(harness.Response{Endless: true, Body: []byte("abc")})
	response, err := post(t, c, "a", "")
	require.NoError(t, err)
	head := make([]byte, 1<<20)
	_, err = io.ReadFull(response.Body, head)
	require.NoError(t, err)
	require.Equal(t, "abcabc", string(head[:6]))
}

func TestCollectorListensWhereItShould(t *testing.T) {
	var url string
	t.Run("first", func(t *testing.T) { url = harness.NewCollector(t).URL() })
	again := harness.NewCollector(t, harness.ListenOn(strings.TrimPrefix(url, "http://")))
	require.Equal(t, url, again.URL())
	require.Equal(t, 200, status(t, again, "a"))
}

func TestCollectorFailsTheTest(t *testing.T) {
	r := &recorder{TB: t}
	c := harness.NewCollector(r)
	require.Equal(t, 200, status(t, c, "a"))
	require.Equal(t, "1 of 2 requests arrived within 10ms", r.failure(func() { c.Wait(2, 10*time.Millisecond) }))
	require.Empty(t, r.failure(func() { c.Quiet(10 * time.Millisecond) }))

	// Whatever was posted before Quiet began to count does not disturb it, so it is posted more than once.
	stop, stopped := make(chan struct{}), make(chan error)
	message := r.failure(func() {
		go func() {
			var err error
			for err == nil && !isClosed(stop) {
				_, err = post(t, c, "late", "body")
			}
			stopped <- err
		}()
		c.Quiet(time.Minute)
	})
	close(stop)
	require.NoError(t, <-stopped)
	require.Contains(t, message, `POST /hook (X-Webhook-ID "late"`)
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
