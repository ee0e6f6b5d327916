package acceptance_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

const trigger = "/webhooks/events/trigger"

// dial opens a connection to the relay on which a test writes what no client would.
func (r *relay) dial() net.Conn {
	r.t.Helper()
	conn, err := (&net.Dialer{}).DialContext(r.t.Context(), "tcp", strings.TrimPrefix(r.url, "http://"))
	require.NoError(r.t, err)
	r.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// untilClosed reads until the other side closes, which it must do in time. That it resets instead is as good.
func untilClosed(t *testing.T, conn net.Conn, within time.Duration) string {
	t.Helper()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(within)))
	text, err := io.ReadAll(conn)
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "it is still open: %.500s", text)
	return string(text)
}

// raw sends bytes as they are and returns the answer, after which the connection must end.
func (r *relay) raw(text string) string {
	r.t.Helper()
	conn := r.dial()
	_, _ = io.WriteString(conn, text) // it may be refused before it has arrived as a whole
	return untilClosed(r.t, conn, soon)
}

// residentMB is how much memory the process has now.
func (r *relay) residentMB() int {
	r.t.Helper()
	status, err := os.ReadFile("/proc/" + strconv.Itoa(r.PID()) + "/status")
	require.NoError(r.t, err)
	_, after, found := strings.Cut(string(status), "VmRSS:")
	require.True(r.t, found)
	kilobytes, err := strconv.Atoi(strings.Fields(after)[0])
	require.NoError(r.t, err)
	return kilobytes / 1024
}

// A body is refused by its announced size at once, and otherwise after no more of it than may be there.
func TestTenGigabytes(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := db.start()
	token := db.newToken("--name", "n", "--scope", "manage,publish")
	for _, path := range []string{"/webhooks/", trigger} {
		head := "POST /api/v1" + path + " HTTP/1.1\r\nHost: relay\r\nContent-Type: application/json\r\nAuthorization: Bearer " + token + "\r\n"
		announced := r.raw(head + "Content-Length: 10737418240\r\n\r\n" + `{"name": "`)
		require.Regexp(t, `^HTTP/1\.1 413 `, announced)
		require.Contains(t, announced, "application/problem+json")

		conn, chunk := r.dial(), fmt.Sprintf("%x\r\n%s\r\n", 1<<20, strings.Repeat(" ", 1<<20))
		before, sent := r.residentMB(), 0
		_, err := io.WriteString(conn, head+"Transfer-Encoding: chunked\r\n\r\n")
		for ; err == nil && sent < 10<<10; sent++ {
			_, err = io.WriteString(conn, chunk)
		}
		require.Error(t, err, "the connection is closed")
		require.Less(t, sent, 64, "after some megabytes, and not gigabytes")
		require.Less(t, r.residentMB()-before, 512, "MB, which leaves the race detector its part")
	}
	r.terminate(soon)
}

// Many large events at once take turns for memory: each arrives or is told to come back, and small ones go on.
func TestManyLargeEvents(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("half a gigabyte of events")
	}
	db := newDatabase(t)
	r := db.start()
	c := r.client(db.newToken("--name", "n", "--scope", "manage,publish"))
	c.post(trigger, `{"event_type": "small"}`).is(202)
	before := r.residentMB()
	const clients = 50
	body := `{"event_type": "large", "event_data": "` + strings.Repeat("x", 10<<20-1024) + `"}`
	type result struct {
		reply
		err error
	}
	results := make(chan result, clients)
	for range clients {
		go func() {
			a, err := c.try(http.MethodPost, trigger, strings.NewReader(body))
			results <- result{a, err}
		}()
	}
	arrived, peak := 0, before
	for range clients {
		a := <-results
		switch {
		case a.err != nil: // whoever still sends when told to come back may see the connection end first
			require.NotErrorIs(t, a.err, context.DeadlineExceeded)
		case a.status != http.StatusAccepted:
			a.refused(503, "")
			require.NotEmpty(t, a.header.Get("Retry-After"))
		default:
			arrived++
		}
		peak = max(peak, r.residentMB())
	}
	require.Positive(t, arrived)
	require.Equal(t, arrived, ask[int](db, "SELECT count(*) FROM outbox.events WHERE type = 'large'"))
	t.Logf("%d of %d arrived; %d MB before, at most %d MB", arrived, clients, before, peak)
	require.Less(t, peak, 2048, "MB, which leaves the race detector its part: of half a gigabyte, a few bodies are held at a time")
	c.post(trigger, `{"event_type": "small"}`).is(202)
	r.terminate(time.Minute)
}

// Whoever sends a byte a second holds up nobody, and is cut off.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := db.start()
	c := r.client(db.newToken("--name", "n", "--scope", "manage,publish"))
	head, body := r.dial(), r.dial()
	_, err := io.WriteString(head, "POST /api/v1"+trigger+" HTTP/1.1\r\nHost: relay\r\n")
	require.NoError(t, err)
	_, err = io.WriteString(body, "POST /api/v1"+trigger+" HTTP/1.1\r\nHost: relay\r\nAuthorization: Bearer "+c.token+"\r\nContent-Length: 1000\r\n\r\n")
	require.NoError(t, err)
	ended := make(chan struct{})
	dripped := make(chan struct{})
	go func() {
		defer close(dripped)
		drip := time.NewTicker(time.Second)
		defer drip.Stop()
		for {
			select {
			case <-ended:
				return
			case <-drip.C:
				_, _ = io.WriteString(head, " ") // until the other side does not want it any more
				_, _ = io.WriteString(body, " ")
			}
		}
	}()
	for range 20 {
		c.post(trigger, `{"event_type": "quick"}`).is(202)
	}
	require.NotContains(t, untilClosed(t, head, soon), "HTTP/1.1 2")
	require.Regexp(t, `^HTTP/1\.1 408 `, untilClosed(t, body, 2*time.Minute))
	close(ended)
	<-dripped
	r.terminate(soon)
}

// What is wrong is refused with the status that says so, and names the place.
func TestBadInput(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := db.start("--log-level", "trace")
	c := r.client(db.newToken("--name", "n", "--scope", "manage,publish"))
	id := c.post("/webhooks/", `{"name": "n", "url": "https://example.com", "is_active": false}`).is(201).object().text("id")
	own, unknown := "/webhooks/"+id, "/webhooks/"+uuid.NewString()
	nested := func(depth int) string { return strings.Repeat("[", depth) + strings.Repeat("]", depth) }
	for _, bad := range []struct {
		method, path, body string
		status             int
		place              string
	}{
		// What is no JSON, or none that can be stored.
		{"POST", "/webhooks/", ``, 400, "body"},
		{"POST", "/webhooks/", `{"name": "n"`, 400, "body"},
		{"POST", "/webhooks/", `{} {}`, 400, "body"},
		{"POST", "/webhooks/", "{\"name\": \"\xff\xfe\"}", 400, "body"},
		{"POST", trigger, "{\"event_type\": \"x\", \"event_data\": \"\xc3\x28\"}", 400, "body"},
		{"POST", trigger, `{"event_type": "x", "event_data": NaN}`, 400, "body"},
		{"POST", trigger, `{"event_type": "x", "event_data": "\u0000"}`, 422, "body"},
		{"POST", trigger, `{"event_type": "x", "event_data": {"\u0000": 1}}`, 422, "body"},
		{"POST", trigger, `{"event_type": "x", "event_data": "\ud800"}`, 422, "body"},
		{"POST", trigger, `{"event_type": "x", "event_data": "\udc00\ud800"}`, 422, "body"},
		{"POST", "/webhooks/", `{"name": "\u0000", "url": "https://example.com"}`, 422, "body"},
		{"POST", trigger, `{"event_type": "x", "event_data": ` + nested(5_000) + `}`, 422, "body"},
		{"POST", trigger, `{"event_type": "x", "event_data": ` + nested(1_000_000) + `}`, 400, "body"},
		{"POST", "/webhooks/", `{"name": "n", "url": "https://example.com", "filters": {"a": ` + nested(100) + `}}`, 422, "body"},
		{"POST", trigger, `{"event_type": "x", "event_data": 1e400000}`, 422, "body.event_data"},

		// Members that are unknown, of another type, or out of bounds.
		{"POST", "/webhooks/", `[]`, 422, "body"},
		{"POST", "/webhooks/", `{"name": "n", "url": "https://example.com", "event_types": []}`, 422, "body.event_types"},
		{"POST", "/webhooks/", `{"name": "n", "url": "https://example.com", "Name": "m"}`, 422, "body.Name"},
		{"POST", "/webhooks/", `{"name": "n", "name": "m", "url": "https://example.com"}`, 422, "body.name"},
		{"POST", "/webhooks/", `{"url": "https://example.com"}`, 422, "body.name"},
		{"POST", "/webhooks/", `{"name": 7, "url": "https://example.com"}`, 422, "body.name"},
		{"POST", "/webhooks/", `{"name": "n", "url": "ftp://example.com"}`, 422, "body.url"},
		{"POST", "/webhooks/", `{"name": "n", "url": "https://user:pass@example.com"}`, 422, "body.url"},
		{"POST", "/webhooks/", `{"name": "n", "url": "https://example.com", "id": "` + id + `"}`, 422, "body.id"},
		{"PATCH", own, `{"max_retries": "3"}`, 422, "body.max_retries"},
		{"PATCH", own, `{"max_retries": 1.5}`, 422, "body.max_retries"},
		{"PATCH", own, `{"max_retries": -1}`, 422, "body.max_retries"},
		{"PATCH", own, `{"max_retries": 9007199254740993}`, 422, "body.max_retries"},
		{"PATCH", own, `{"timeout": 1e400}`, 422, "body.timeout"},
		{"PATCH", own, `{"timeout": 301}`, 422, "body.timeout"},
		{"PATCH", own, `{"retry_delay": -0.1}`, 422, "body.retry_delay"},
		{"PATCH", own, `{"is_active": "yes"}`, 422, "body.is_active"},
		{"PATCH", own, `{"events": "patient.created"}`, 422, "body.events"},
		{"PATCH", own, `{"events": ["a b"]}`, 422, "body.events"},
		{"PATCH", own, `{"headers": {"X-A": 1}}`, 422, "body.headers"},
		{"PATCH", own, `{"headers": {"X-A": "a\r\nX-B: b"}}`, 422, "body.headers"},
		{"PATCH", own, `{"headers": {"Content-Length": "1"}}`, 422, "body.headers"},
		{"PATCH", own, `{"filters": []}`, 422, "body.filters"},
		{"PATCH", own, `{"signature": "md5"}`, 422, "body.signature"},
		{"PATCH", own, `{"tenant": "other"}`, 422, "body.tenant"},
		{"POST", own + "/replay", `{"since": "yesterday"}`, 422, "body.since"},
		{"POST", own + "/rotate-secret", `{"new_secret": "` + strings.Repeat("s", 20_000) + `"}`, 422, "body.new_secret"},
		{"POST", trigger, `{"event_type": "` + strings.Repeat("x", 256) + `"}`, 422, "body.event_type"},
		{"POST", trigger, `{"event_type": "walhook.test"}`, 422, "body.event_type"},
		{"POST", "/event-types", `{"name": "x", "number": 4294967296}`, 422, "body.number"},
		{"POST", "/event-types", `{"name": "x", "schema": {"$ref": "file:///etc/passwd"}}`, 422, "body.schema"},
		{"POST", "/event-types", `{"name": "x", "schema": {"$ref": "http://127.0.0.1:1/"}}`, 422, "body.schema"},

		// Parameters.
		{"GET", "/webhooks/?limit=0", "", 422, "query.limit"},
		{"GET", "/webhooks/?limit=501", "", 422, "query.limit"},
		{"GET", "/webhooks/?limit=many", "", 422, "query.limit"},
		{"GET", "/webhooks/?status=maybe", "", 422, "query.status"},
		{"GET", "/webhooks/?sort=name", "", 422, "query.sort"},
		{"GET", "/webhooks/?limit=1&limit=2", "", 400, "query.limit"},
		{"GET", "/webhooks/?cursor=AAAA", "", 422, "query.cursor"},
		{"GET", "/webhooks/?cursor=%27%20OR%201=1--", "", 422, "query.cursor"},
		{"GET", "/webhooks/?cursor=WzEsIm5vdyIsIngiXQ", "", 422, "query.cursor"}, // [1,"now","x"]
		{"GET", "/webhooks/?cursor=" + strings.Repeat("A", 20_000), "", 422, "query.cursor"},
		{"GET", "/event-types?cursor=WzEsMSwiXHUwMDAwIl0", "", 422, "query.cursor"}, // a NUL in it
		{"GET", own + "/calls?status=99", "", 422, "query.status"},
		{"GET", own + "/calls?since=now", "", 422, "query.since"},
		{"GET", own + "/calls?cursor=WzEsIjIwMjYtMDEtMDFUMDA6MDA6MDBaIl0", "", 422, "query.cursor"}, // too short

		// What is not there, and ways round.
		{"GET", unknown, "", 404, ""},
		{"DELETE", unknown, "", 404, ""},
		{"PATCH", unknown, `{}`, 404, ""},
		{"POST", unknown + "/test", `{}`, 404, ""},
		{"GET", unknown + "/calls", "", 404, ""},
		{"GET", "/webhooks/7", "", 404, ""},
		{"GET", "/webhooks/%7B" + id + "%7D", "", 404, ""},
		{"GET", "/webhooks/" + strings.ReplaceAll(id, "-", ""), "", 404, ""},
		{"GET", "/webhooks/urn:uuid:" + id, "", 404, ""},
		{"GET", "/webhooks/%00", "", 404, ""},
		{"GET", "/webhooks//" + id, "", 404, ""},
		{"GET", "/webhooks/../webhooks/" + id, "", 404, ""},
		{"GET", "/webhooks/%2e%2e/webhooks/" + id, "", 404, ""},
		{"GET", "/webhooks%2f" + id, "", 404, ""},
		{"GET", own + "//calls", "", 404, ""},
		{"GET", own + "/calls/..", "", 404, ""},
		{"GET", "/" + strings.Repeat("x", 10_000), "", 404, ""},
		{"POST", own, `{}`, 405, ""},
		{"DELETE", "/webhooks/", "", 405, ""},
		{"PUT", trigger, `{}`, 405, ""},
		{"TRACE", "/webhooks/", "", 405, ""},
		{"BREW", "/webhooks/", "", 405, ""},
	} {
		a := c.send(bad.method, bad.path, bad.body)
		require.Equal(t, bad.status, a.status, "%s %.200s %.200s: %.500s", bad.method, bad.path, bad.body, a.text)
		a.refused(bad.status, bad.place)
		require.Less(t, len(a.text), 2_000, "an answer does not repeat what was sent")
	}
	for name, value := range map[string]string{"Content-Type": "text/plain", "Content-Encoding": "gzip"} {
		c.send("POST", trigger, `{"event_type": "x"}`, name, value).refused(415, "")
	}
	c.send("PATCH", own, `{"name": "m"}`, "If-Match", "seven").refused(400, "header.If-Match")
	require.Equal(t, "GET, POST", c.send("DELETE", "/webhooks/", "").header.Get("Allow"))
	require.Equal(t, 1, ask[int](db, "SELECT count(*) FROM outbox.subscriptions WHERE revision = 1"), "nothing was changed")
	require.Zero(t, ask[int](db, "SELECT (SELECT count(*) FROM outbox.events) + (SELECT count(*) FROM outbox.event_types)"))

	flood := strings.Repeat("X-Flood: "+strings.Repeat("x", 1000)+"\r\n", 1000)
	require.Regexp(t, `^HTTP/1\.1 431 `, r.raw("GET /api/v1/webhooks/ HTTP/1.1\r\nHost: relay\r\n"+flood+"\r\n"))
	require.Regexp(t, `^HTTP/1\.1 400 `, r.raw("GET /api/v1/webhooks/ HTTP/1.1\r\nHost: relay\r\nHost: other\r\n\r\n"))
	require.Regexp(t, `^HTTP/1\.1 400 `, r.raw("POST /api/v1/webhooks/ HTTP/1.1\r\nHost: relay\r\nAuthorization: Bearer "+c.token+"\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"))
	require.NotContains(t, r.Stderr(), `"level":"error"`)
	r.terminate(soon)
}

// Filters that the relay could not use are refused at once; one that comes by SQL is told of with the webhook.
func TestFiltersThatTheRelayRefuses(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := db.start()
	c := r.client(db.newToken("--name", "n", "--scope", "manage"))
	refused := c.post("/webhooks/", `{"name": "n", "url": "https://example.com", "filters": {"a": {"like": "x"}}}`).is(422)
	require.Contains(t, refused.text, "body.filters")
	require.Contains(t, refused.text, "like")
	id := ask[string](db, `INSERT INTO outbox.subscriptions (name, url, filters) VALUES ('n', 'https://example.com', '{"a": {"like": "x"}}') RETURNING id::text`)
	status := func(status string) func() bool {
		return func() bool { return c.get("/webhooks/"+id).is(200).object().text("status") == status }
	}
	harness.Eventually(t, soon, "the webhook is invalid", status("invalid"))
	require.Contains(t, c.get("/webhooks/"+id).object().text("status_reason"), `"like"`)
	c.send("PATCH", "/webhooks/"+id, `{"filters": {"a": {"prefix": "x"}}}`).is(200)
	harness.Eventually(t, soon, "the webhook is valid", status("valid"))
	r.terminate(soon)
}

// What can be stored arrives as it was written.
func TestUnusualEventsArriveAsTheyAre(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := db.start()
	c := r.client(db.newToken("--name", "n", "--scope", "manage,publish"))
	received := harness.NewCollector(t)
	c.post("/webhooks/", `{"name": "n", "url": "`+received.URL()+`"}`).is(201)
	for i, data := range []string{
		`9007199254740993`, `-0.10`, `123456789012345678901234567890.123456789`, `null`, `"ä😀\n\\\""`, `[]`, `{"": {"__proto__": 1.50}}`, `"<script>&\u2028"`,
		strings.Repeat("[", 900) + strings.Repeat("]", 900),
	} {
		c.post(trigger, `{"event_type": "x", "event_data": `+data+`}`).is(202)
		request := received.Wait(i+1, soon)[i]
		want := parsed(t, `{"event_data": `+data+`}`)
		require.Equal(t, want.members["event_data"], parsed(t, string(request.Body)).members["event_data"])
	}
	huge := c.post(trigger, `{"event_type": "x", "event_data": 1e400}`).is(202)
	require.NotEmpty(t, huge.object().text("event_id"))
	require.Contains(t, string(received.Wait(10, soon)[9].Body), `"event_data":1`+strings.Repeat("0", 400)+`,`, "numeric of Postgres, and no float")
	r.terminate(soon)
}

// canaries are secrets, each of which comes into the relay on another way and must not leave it but in a webhook.
type canaries map[string]string

func newCanaries() canaries {
	all := canaries{}
	for _, name := range []string{"configured", "guessed", "secret", "next", "header", "data", "mistyped"} {
		all[name] = "canary-" + name + "-" + uuid.NewString()
	}
	return all
}

func (all canaries) absent(t *testing.T, where, text string) {
	t.Helper()
	for name, canary := range all {
		require.NotContains(t, text, canary, "%s in %s", name, where)
	}
}

// Nothing secret is in the log, at whatever level, in metrics or in an answer, whether a request succeeded or not.
func TestSecretsStayInside(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	all := newCanaries()
	p := harness.StartProcess(t, db.cli, append(db.env(), "WALHOOK_API_TOKEN="+all["configured"]), "run", "--log-level", "trace")
	r := &relay{Process: p, t: t, url: "http://" + parsed(t, p.WaitFor("walhook runs", soon)).text("listen")}
	c := r.client(all["configured"])
	received := harness.NewCollector(t)
	received.Script(harness.Response{}, harness.Response{Reset: true}, harness.Response{Status: 500})
	asked := func(method, path, body string, headers ...string) reply {
		t.Helper()
		a := c.send(method, path, body, headers...)
		all.absent(t, method+" "+path, a.text+fmt.Sprint(a.header))
		return a
	}
	webhook := `{"name": "n", "url": "` + received.URL() + `", "secret": "` + all["secret"] + `", "headers": {"Authorization": "` + all["header"] + `",
		"X-Api-Key": "` + all["header"] + `"}, "max_retries": 0`
	id := asked("POST", "/webhooks/", webhook+"}").is(201).object().text("id")
	own := "/webhooks/" + id
	asked("PUT", own, webhook+"}").is(200)
	asked("POST", own+"/rotate-secret", `{"new_secret": "`+all["next"]+`"}`).is(200)
	for _, path := range []string{own, "/webhooks/", own + "/stats", "/webhooks/system/stats", "/replication"} {
		asked("GET", path, "").is(200)
	}

	// What is refused is the way on which secrets like to get into answers and logs.
	asked("POST", "/webhooks/", webhook+`, "max_retrys": 1}`).is(422)
	asked("POST", "/webhooks/", `{"name": "n", "url": "https://example.com", "sercet": "`+all["mistyped"]+`"}`).is(422)
	asked("POST", "/webhooks/", `{"name": "n", "url": "https://example.com", "secret": "`+all["mistyped"]).is(400)
	asked("PATCH", own, `{"secret": ["`+all["mistyped"]+`"]}`).is(422)
	asked("PATCH", own, `{"secret": "`+all["mistyped"]+`", "max_retries": 99}`).is(422)
	asked("PATCH", own, `{"secret": "`+strings.Repeat(all["mistyped"], 500)+`"}`).is(422)
	asked("PATCH", own, `{"secret": "`+all["mistyped"]+`", "signature": "standard"}`).is(422)
	asked("PATCH", own, `{"headers": {"X-A": "`+all["mistyped"]+`\n"}}`).is(422)
	asked("PATCH", own, `{"headers": {"Authorization": ["`+all["mistyped"]+`"]}}`).is(422)
	asked("POST", own+"/rotate-secret", `{"new_secret": {"x": "`+all["mistyped"]+`"}}`).is(422)
	asked("POST", own+"/rotate-secret", `{"secret": "`+all["mistyped"]+`"}`).is(422)
	asked("POST", trigger, `{"event_type": "x", "event_data": "`+all["data"]+`\u0000"}`).is(422)
	asked("POST", trigger, `{"event_type": "x", "data": "`+all["data"]+`"}`).is(422)
	asked("POST", trigger, `{"event_type": "x", "event_data": ["`+all["data"]+`"`).is(400)
	asked("POST", "/event-types", `{"name": "strict", "validation": "reject", "schema": {"type": "object", "properties": {"a": {"type": "string", "pattern": "^b$"}}}}`).is(201)
	asked("POST", trigger, `{"event_type": "strict", "event_data": {"a": "`+all["data"]+`"}}`).is(422)
	asked("GET", "/webhooks/", "", "Authorization", "Bearer "+all["guessed"]).is(401)
	asked("GET", "/webhooks/", "", "Authorization", "Basic "+all["guessed"]).is(401)
	asked("GET", "/no-such-path", "", "Authorization", "Bearer "+all["guessed"]).is(401)

	for n := range 3 { // delivered, reset, refused
		asked("POST", trigger, `{"event_type": "visit.ended", "event_data": "`+all["data"]+`"}`).is(202)
		request := received.Wait(n+1, soon)[n]
		require.Contains(t, string(request.Body), all["data"])
		require.Equal(t, all["header"], request.Header.Get("Authorization"))
	}
	harness.Eventually(t, soon, "the attempts are recorded", func() bool { return len(c.get(own+"/calls").items()) == 3 })
	calls := c.get(own + "/calls").is(200).text
	require.Contains(t, calls, all["data"], "the calls log shows what was sent")
	delete(all, "data")
	all.absent(t, "the calls", calls)

	_, metrics := r.get("/metrics")
	_, ready := r.get("/readyz")
	all["data"] = "canary-data-"
	all.absent(t, "/metrics and /readyz", metrics+ready)
	r.terminate(soon)
	all.absent(t, "the log", p.Stderr()+p.Stdout())
}
