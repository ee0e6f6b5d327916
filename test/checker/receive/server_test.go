package receive_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/walhook/walhook/test/checker/history"
	"github.com/walhook/walhook/test/checker/receive"
)

// A goroutine that a closed server left behind fails the package.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what should come at once.
const patience = 30 * time.Second

// receiver is a server under test, the path of its log, and a client of its own.
type receiver struct {
	*receive.Server
	t      *testing.T
	log    string
	client *http.Client
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	log := filepath.Join(t.TempDir(), "receipts")
	server, err := receive.New(log, 1)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Close()) })
	return &receiver{Server: server, t: t, log: log, client: newClient(t)}
}

func newClient(t *testing.T) *http.Client {
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

// post sends a body to a subscription and returns the status and the response's body. The error is that of
// either the request or of reading the body; with the latter the status is set.
func (r *receiver) post(subscription uuid.UUID, body string) (int, string, error) {
	response, err := r.client.Post(r.URL()+"/s/"+subscription.String(), "", strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	return response.StatusCode, string(answer), err
}

func (r *receiver) requireStatus(want int, subscription uuid.UUID, body string) {
	r.t.Helper()
	status, _, err := r.post(subscription, body)
	require.NoError(r.t, err)
	require.Equal(r.t, want, status)
}

// requireOpen waits until n requests are open.
func (r *receiver) requireOpen(n int) {
	r.t.Helper()
	require.Eventually(r.t, func() bool { return r.Open() == n }, patience, time.Millisecond)
}

// closed closes the server and returns its receipts, which are complete then and must be what the log says.
func (r *receiver) closed() []history.Receipt {
	r.t.Helper()
	require.NoError(r.t, r.Close())
	loaded, err := receive.Load(r.log)
	require.NoError(r.t, err)
	receipts := r.Receipts()
	require.Equal(r.t, wall(receipts), wall(loaded))
	return receipts
}

// wall makes times comparable: without zone and monotonic clock.
func wall(receipts []history.Receipt) []history.Receipt {
	var out []history.Receipt
	for _, receipt := range receipts {
		receipt.ArrivedAt, receipt.AnsweredAt = receipt.ArrivedAt.UTC().Round(0), receipt.AnsweredAt.UTC().Round(0)
		out = append(out, receipt)
	}
	return out
}

func TestReceipt(t *testing.T) {
	t.Parallel()
	r, subscription := newReceiver(t), uuid.New()
	before := time.Now()
	for _, attempt := range []string{"3", "many"} {
		body := io.MultiReader(strings.NewReader(`{"n": `), strings.NewReader(`1}`)) // of unknown length
		request, err := http.NewRequest(http.MethodPost, r.URL()+"/s/"+subscription.String()+"/any/thing", body)
		require.NoError(t, err)
		request.Header.Set("X-Webhook-ID", "id")
		request.Header.Set("X-Webhook-Event", "type")
		request.Header.Set("X-Webhook-Attempt", attempt)
		request.Header.Set("X-Webhook-Signature", "sha256=12")
		request.Header.Add("Webhook-Signature", "v1,a")
		request.Header.Add("Webhook-Signature", "v1,b")
		request.Header.Set("X-Webhook-Batch", "1")
		response, err := r.client.Do(request)
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, response.Body)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
	}

	receipts := r.closed()
	for i, attempt := range []int{3, 0} {
		got := receipts[i]
		require.WithinRange(t, got.ArrivedAt, before, got.AnsweredAt)
		require.WithinRange(t, got.AnsweredAt, got.ArrivedAt, time.Now())
		got.ArrivedAt, got.AnsweredAt = time.Time{}, time.Time{}
		require.Equal(t, history.Receipt{
			Seq: int64(i + 1), Subscription: subscription, Path: "/s/" + subscription.String() + "/any/thing", Delivery: "id", Type: "type", Attempt: attempt,
			Signature: map[string]string{"X-Webhook-Signature": "sha256=12", "Webhook-Signature": "v1,a\nv1,b"}, Batch: "1", Body: []byte(`{"n": 1}`), Behaviour: "ok", Status: 200,
		}, got)
	}
	require.Empty(t, r.Strays())
}

func TestIsLoggedBeforeItIsAnswered(t *testing.T) {
	t.Parallel()
	for _, behaviour := range []receive.Behaviour{receive.OK, receive.Error, receive.Reset, receive.Early} {
		r := newReceiver(t)
		r.SetAll(behaviour)
		_, _, _ = r.post(uuid.New(), `{"n": 7}`)
		loaded, err := receive.Load(r.log)
		require.NoError(t, err)
		require.Len(t, loaded, 1, behaviour)
		require.Equal(t, `{"n": 7}`, string(loaded[0].Body))
		require.Equal(t, string(behaviour), loaded[0].Behaviour)
	}
}

// TestDoesNotAnswerWithoutTheDisk logs to a pipe, which can be written to and not synced.
func TestDoesNotAnswerWithoutTheDisk(t *testing.T) {
	t.Parallel()
	reader, writer, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { _ = reader.Close() })
	server, err := receive.Serve(writer, 1)
	require.NoError(t, err)
	t.Cleanup(func() { _ = server.Close() })
	r := &receiver{Server: server, t: t, client: newClient(t)}

	for range 2 { // the second is not even written
		_, _, err = r.post(uuid.New(), `{"n": 1}`)
		require.ErrorIs(t, err, io.EOF)
	}
	require.ErrorIs(t, r.Close(), syscall.EINVAL)
	lines, err := io.ReadAll(reader)
	require.NoError(t, err)
	require.Equal(t, 1, bytes.Count(lines, []byte("\n")))
	for _, receipt := range r.Receipts() {
		require.Zero(t, receipt.Status)
		require.NotZero(t, receipt.AnsweredAt)
	}
	require.Zero(t, r.Settled())
}

func TestBehaviours(t *testing.T) {
	t.Parallel()
	for behaviour, want := range map[receive.Behaviour]struct {
		seen   int // by the client
		err    error
		status int // in the receipt
	}{
		"":            {200, nil, 200},
		receive.OK:    {200, nil, 200},
		receive.Slow:  {200, nil, 200},
		receive.Error: {500, nil, 500},
		receive.Busy:  {429, nil, 429},
		receive.Gone:  {410, nil, 410},
		receive.Reset: {0, syscall.ECONNRESET, 0},
		receive.Early: {200, io.ErrUnexpectedEOF, 200},
	} {
		t.Run(string(behaviour), func(t *testing.T) {
			t.Parallel()
			r, subscription := newReceiver(t), uuid.New()
			r.Set(subscription, behaviour)
			status, _, err := r.post(subscription, `{"n": 1}`)
			require.ErrorIs(t, err, want.err)
			require.Equal(t, want.seen, status)
			r.requireStatus(200, uuid.New(), `{"n": 1}`)

			receipt := r.closed()[0]
			require.Equal(t, want.status, receipt.Status)
			require.False(t, receipt.AnsweredAt.Before(receipt.ArrivedAt))
			if behaviour != "" {
				require.Equal(t, string(behaviour), receipt.Behaviour)
			}
		})
	}
}

func TestBusySaysWhenToComeAgain(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	r.SetAll(receive.Busy)
	response, err := r.client.Post(r.URL()+"/s/"+uuid.NewString(), "", nil)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, "1", response.Header.Get("Retry-After"))
}

func TestSlowIsSlow(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	r.SetAll(receive.Slow)
	for range 3 {
		r.requireStatus(200, uuid.New(), "")
	}
	for _, receipt := range r.closed() {
		require.GreaterOrEqual(t, receipt.AnsweredAt.Sub(receipt.ArrivedAt), 20*time.Millisecond)
	}
}

func TestTheSeedDecidesWhatFlapDoes(t *testing.T) {
	t.Parallel()
	var runs [2][]string
	for i := range runs {
		r := newReceiver(t)
		r.SetAll(receive.Flap)
		for range 20 {
			_, _, err := r.post(uuid.New(), "")
			require.NoError(t, err)
		}
		for _, receipt := range r.closed() {
			runs[i] = append(runs[i], fmt.Sprint(receipt.Behaviour, receipt.Status))
		}
	}
	require.Equal(t, runs[0], runs[1])
	require.Contains(t, runs[0], "ok200")
	require.Contains(t, runs[0], "error500")
}

func TestHangEndsWithHeal(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	r.SetAll(receive.Hang)
	ended := make(chan error, 1)
	go func() {
		_, _, err := r.post(uuid.New(), "")
		ended <- err
	}()
	r.requireOpen(1)
	r.SetAll(receive.OK)
	r.requireStatus(200, uuid.New(), "") // by which nothing is released
	require.Empty(t, ended)
	r.Heal()
	require.ErrorIs(t, <-ended, io.EOF)
	r.requireOpen(0)

	receipt := r.closed()[0]
	require.Equal(t, "hang", receipt.Behaviour)
	require.Zero(t, receipt.Status)
	require.NotZero(t, receipt.AnsweredAt)
}

func TestHangEndsWithItsClient(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	r.SetAll(receive.Hang)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.URL()+"/s/"+uuid.NewString(), nil)
		if err == nil {
			_, err = r.client.Do(request)
		}
		ended <- err
	}()
	r.requireOpen(1)
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	r.requireOpen(0)
	require.Zero(t, r.closed()[0].Status)
}

func TestWhoseBehaviourCounts(t *testing.T) {
	t.Parallel()
	r, one, other := newReceiver(t), uuid.New(), uuid.New()
	r.Set(one, receive.Error)
	r.requireStatus(500, one, "")
	r.requireStatus(200, other, "")
	r.SetAll(receive.Busy)
	r.requireStatus(429, one, "")
	r.requireStatus(429, other, "")
	r.SetAll("")
	r.requireStatus(500, one, "")
	r.requireStatus(200, other, "")
	r.SetAll(receive.Busy)
	r.Heal()
	r.requireStatus(200, one, "")
	r.requireStatus(200, other, "")
}

func TestSettledCountsEventsOfSubscriptions(t *testing.T) {
	t.Parallel()
	r, one, other := newReceiver(t), uuid.New(), uuid.New()
	r.Set(other, receive.Error)
	r.requireStatus(200, one, `{"event_type": "a", "event_data": {"n": 1}, "n": 9}`)
	r.requireStatus(200, one, `{"n": 1}`) // the same event
	r.requireStatus(200, one, `{"n": 2}`)
	r.requireStatus(200, one, `{"m": 3}`)
	r.requireStatus(200, one, `nothing`)
	r.requireStatus(500, other, `{"n": 1}`)
	r.requireOpen(0)
	require.Equal(t, 2, r.Settled())
	r.requireStatus(200, one, `[{"event_data": {"n": 2}}, {"event_data": {"n": 8}}, {"n": 9}]`)
	r.requireOpen(0)
	require.Equal(t, 4, r.Settled(), "of a batch each one")
	require.True(t, r.Got(one, 9))
	r.Set(other, receive.Early)
	_, _, err := r.post(other, `{"n": 1}`)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	r.requireOpen(0)
	require.Equal(t, 5, r.Settled())
}

// A receiver agrees to whoever asks with OPTIONS (CloudEvents Web Hooks, section 4), which is no delivery.
func TestAgrees(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	request, err := http.NewRequest(http.MethodOptions, r.URL()+"/s/"+uuid.NewString(), nil)
	require.NoError(t, err)
	response, err := r.client.Do(request)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, "*", response.Header.Get("WebHook-Allowed-Origin"))
	require.Empty(t, r.closed())
	require.Empty(t, r.Strays())
}

func TestStrays(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	id := uuid.NewString()
	paths := []string{"/", "/s/", "/s/nobody", "/x/" + id, "/" + id}
	var want []string
	for _, path := range paths {
		response, err := r.client.Post(r.URL()+path, "", strings.NewReader("{}"))
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		require.Equal(t, 404, response.StatusCode, path)
		want = append(want, "POST "+path+" ")
	}
	response, err := r.client.Get(r.URL() + "/s/" + id)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Equal(t, 404, response.StatusCode)
	require.Equal(t, append(want, "GET /s/"+id+" "), r.Strays())
	require.Empty(t, r.closed())
}

func TestARequestThatBreaksOffIsNone(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	conn := r.dial()
	_, err := fmt.Fprintf(conn, "POST /s/%s HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345", uuid.New())
	require.NoError(t, err)
	require.NoError(t, conn.CloseWrite())
	_, err = io.ReadAll(conn)
	require.NoError(t, err)
	require.Empty(t, r.closed())
	require.Empty(t, r.Strays())
}

// dial connects to the server.
func (r *receiver) dial() *net.TCPConn {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.Addr())
	require.NoError(r.t, err)
	r.t.Cleanup(func() { _ = conn.Close() })
	require.NoError(r.t, conn.SetDeadline(time.Now().Add(patience)))
	return conn.(*net.TCPConn)
}

func TestCloseIdle(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	for range 2 { // connections are kept again after CloseIdle
		conn := r.dial()
		reader := bufio.NewReader(conn)
		for range 2 {
			_, err := fmt.Fprintf(conn, "POST /s/%s HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", uuid.New())
			require.NoError(t, err)
			response, err := http.ReadResponse(reader, nil)
			require.NoError(t, err)
			_, err = io.Copy(io.Discard, response.Body)
			require.NoError(t, err)
		}
		ended := make(chan error, 1)
		go func() {
			_, err := reader.ReadByte()
			ended <- err
		}()
		require.Eventually(t, func() bool { // the answer arrives before the server takes the connection for idle
			r.CloseIdle()
			return len(ended) == 1
		}, patience, time.Millisecond)
		require.ErrorIs(t, <-ended, io.EOF)
	}
}

func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	const clients, each = 16, 50
	r := newReceiver(t)
	var sending sync.WaitGroup
	for i := range clients {
		sending.Go(func() {
			for j := range each {
				if status, _, err := r.post(uuid.New(), fmt.Sprintf(`{"n": %d}`, i*each+j)); status != 200 || err != nil {
					t.Errorf("%d %v", status, err)
				}
			}
		})
	}
	sending.Wait()
	receipts := r.closed()
	require.Len(t, receipts, clients*each)
	require.Equal(t, clients*each, r.Settled())
	for i, receipt := range receipts {
		require.EqualValues(t, i+1, receipt.Seq)
		require.Equal(t, 200, receipt.Status)
		require.True(t, i == 0 || !receipt.ArrivedAt.Before(receipts[i-1].ArrivedAt))
	}
}

func TestHugeBody(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	body := `{"event_data": {"blob": "` + strings.Repeat("x", 5<<20) + `", "n": 1}}`
	r.requireStatus(200, uuid.New(), body)
	require.True(t, body == string(r.closed()[0].Body))
	require.Equal(t, 1, r.Settled())
}

func TestCloseBreaksOff(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	r.SetAll(receive.Hang)
	ended := make(chan error, 1)
	go func() {
		_, _, err := r.post(uuid.New(), "")
		ended <- err
	}()
	r.requireOpen(1)
	receipts := r.closed()
	require.Error(t, <-ended)
	require.Len(t, receipts, 1)
	require.Zero(t, receipts[0].Status)
	require.Zero(t, r.Open())
	require.NoError(t, r.Close(), "again")
	_, _, err := r.post(uuid.New(), "")
	require.True(t, errors.Is(err, syscall.ECONNREFUSED), err)
}

func TestNewKeepsAnOldLog(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	_, err := receive.New(r.log, 1)
	require.ErrorIs(t, err, os.ErrExist)
}
