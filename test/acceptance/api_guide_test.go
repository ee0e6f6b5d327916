package acceptance_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/outbox/receiver"
	"github.com/walhook/walhook/test/harness"
)

const (
	webhookMembers = `id tenant name description url events filters headers has_secret signature payload_format payload_version max_retries
		retry_delay timeout ordering max_in_flight rate_limit batch_size batch_wait verification is_active status created_at updated_at revision`
	callMembers = `delivery_id event_id webhook_id attempt url method request_headers payload status response_body duration_ms error
		attempted_at succeeded`
	numberMembers = "total success failed success_rate mean_ms p95_ms"
	statsMembers  = numberMembers + " pending dead last_attempt_at consecutive_failures last_hour last_day last_week"
	slotMembers   = `slot_name active wal_status lag_bytes retained_bytes lag_seconds checkpoint_lsn confirmed_lsn queue_depth
		oldest_pending_seconds safe_bytes dead_letters`
)

// clinic is who the guide is written for: a program with a token, and a server of its own that receives webhooks.
type clinic struct {
	*client
	relay    *relay
	received *harness.Collector
	secrets  []string // with which requests to it may be signed
	webhook  string   // id
	seen     int      // requests that were looked at
}

// TestTheGuideOfTheAPI walks once through everything that the API has, as a clinic's program would.
func TestTheGuideOfTheAPI(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := db.start("--log-level", "trace")
	token := db.newToken("--name", "clinic", "--scope", "manage,publish")
	c := &clinic{client: r.client(token), relay: r, received: harness.NewCollector(t), secrets: []string{"correct horse battery staple"}}

	c.createsAWebhook()
	c.listsWebhooks()
	c.replacesAndChangesIt()
	c.pausesIt()
	c.testsIt()
	delivery := c.triggersAnEvent()
	c.readsStatistics()
	c.readsCalls(delivery)
	c.keepsACatalogue()
	c.rotatesTheSecret()
	c.replaysAndRedelivers(delivery)
	c.looksAtTheSlot()
	c.removesIt()

	r.terminate(soon)
	for _, secret := range append(c.secrets, token, "Basic Y2xpbmlj") {
		require.NotContains(t, r.Stderr(), secret)
	}
}

func (c *clinic) createsAWebhook() {
	a := c.post("/webhooks/", `{"name": "Cardiology", "description": "New patients of cardiology", "url": "`+c.received.URL()+`/hooks",
		"events": ["patient.created", "visit.*"], "headers": {"X-Clinic": "north", "Authorization": "Basic Y2xpbmlj"}, "secret": "`+c.secrets[0]+`",
		"max_retries": 2, "retry_delay": 0.5, "timeout": 10, "filters": {"department": "cardiology", "amount_min": 1000.50}, "is_active": true}`).is(201)
	made := a.object()
	made.consistsOf(webhookMembers).has(`{"tenant": "", "name": "Cardiology", "description": "New patients of cardiology",
		"url": "` + c.received.URL() + `/hooks", "events": ["patient.created", "visit.*"],
		"headers": {"X-Clinic": "north", "Authorization": "[redacted]"}, "has_secret": true, "signature": "sha256", "payload_format": "envelope",
		"payload_version": 1, "max_retries": 2, "retry_delay": 0.5, "timeout": 10, "filters": {"department": "cardiology", "amount_min": 1000.50},
		"ordering": "none", "max_in_flight": 16, "rate_limit": null, "batch_size": 1, "batch_wait": 0, "verification": "none", "is_active": true,
		"status": "valid", "revision": 1}`)
	require.WithinDuration(c.t, time.Now(), made.moment("created_at"), soon)
	require.Equal(c.t, made.moment("created_at"), made.moment("updated_at"))
	c.webhook = made.text("id")
	require.Equal(c.t, "/api/v1/webhooks/"+c.webhook, a.header.Get("Location"))
	require.Equal(c.t, `"1"`, a.header.Get("ETag"))
	require.Equal(c.t, made, c.get("/webhooks/"+c.webhook).is(200).object(), "it is as it was made")
}

func (c *clinic) listsWebhooks() {
	for _, name := range []string{"Radiology", "Archive"} {
		c.post("/webhooks/", `{"name": "`+name+`", "url": "https://example.com/", "is_active": false}`).is(201)
	}
	names := func(query string) (names []string, next string) {
		page := c.get("/webhooks/" + query).is(200).object()
		for _, one := range page.list("items") {
			names = append(names, one.consistsOf(webhookMembers).text("name"))
		}
		next, _ = page.members["next_cursor"].(string)
		return names, next
	}
	all, next := names("")
	require.Equal(c.t, []string{"Archive", "Radiology", "Cardiology"}, all, "the newest first")
	require.Empty(c.t, next)
	some, next := names("?status=inactive&limit=1")
	require.Equal(c.t, []string{"Archive"}, some)
	some, next = names("?status=inactive&limit=1&cursor=" + next)
	require.Equal(c.t, []string{"Radiology"}, some)
	require.Empty(c.t, next, "that was the last")
	some, _ = names("?status=active")
	require.Equal(c.t, []string{"Cardiology"}, some)
}

func (c *clinic) replacesAndChangesIt() {
	path := "/webhooks/" + c.webhook
	read := c.get(path).is(200)
	c.send(http.MethodPut, path, read.text, "If-Match", read.header.Get("ETag")).is(200)
	same := c.get(path).is(200).object()
	for name, value := range read.object().members {
		if name != "revision" && name != "updated_at" {
			require.Equal(c.t, value, same.members[name], "what was read and sent back changes nothing: %s", name)
		}
	}

	replaced := c.send(http.MethodPut, path, `{"name": "Heart", "url": "`+c.received.URL()+`/heart", "events": ["patient.created"],
		"headers": {"X-Clinic": "south", "Authorization": "[redacted]"}, "retry_delay": 0.1}`).is(200)
	replaced.object().has(`{"name": "Heart", "description": "", "events": ["patient.created"], "filters": {}, "has_secret": true, "max_retries": 3,
		"retry_delay": 0.1, "timeout": 30, "is_active": true}`)

	changed := c.send(http.MethodPatch, path, `{"filters": {"department": "cardiology"}, "max_retries": 0, "timeout": 5}`, "If-Match", replaced.header.Get("ETag")).is(200)
	changed.object().has(`{"name": "Heart", "filters": {"department": "cardiology"}, "max_retries": 0, "timeout": 5, "retry_delay": 0.1,
		"headers": {"X-Clinic": "south", "Authorization": "[redacted]"}}`)
	late := c.send(http.MethodPatch, path, `{"timeout": 6}`, "If-Match", replaced.header.Get("ETag")).refused(412, "")
	require.Equal(c.t, changed.object().members["revision"], late.members["revision"], "whoever comes too late is told what it is now")
	require.Equal(c.t, changed.text, c.get(path).is(200).text, "and has changed nothing")

	problem := c.send(http.MethodPatch, path, `{"max_retries": 11}`).refused(422, "body.max_retries")
	require.Contains(c.t, problem.text("detail"), "10", "the remedy is said")
}

func (c *clinic) pausesIt() {
	path := "/webhooks/" + c.webhook
	c.post(path+"/deactivate", "").is(200).object().has(`{"is_active": false}`)
	c.post(path+"/test", "").refused(409, "")
	require.Len(c.t, c.get("/webhooks/?status=active").is(200).items(), 0)
	c.post(path+"/activate", "").is(200).object().has(`{"is_active": true, "status": "valid"}`)
}

// next waits for a webhook, holds it to its signature, and returns it with its envelope.
func (c *clinic) next() (harness.Request, object) {
	c.t.Helper()
	request := c.received.Wait(c.seen+1, soon)[c.seen]
	c.seen++
	for _, secret := range c.secrets {
		v, err := receiver.NewVerifier(receiver.Options{Scheme: receiver.SHA256, Secrets: []string{secret}})
		require.NoError(c.t, err)
		require.NoError(c.t, v.Verify(request.Header, request.Body), "it is signed with every secret that is valid")
	}
	require.Equal(c.t, "south", request.Header.Get("X-Clinic"))
	require.Equal(c.t, "Basic Y2xpbmlj", request.Header.Get("Authorization"), "a header that is shown to nobody is sent")
	envelope := parsed(c.t, string(request.Body))
	envelope.consistsOf("event_type event_data webhook_id timestamp attempt")
	require.Equal(c.t, request.ID(), envelope.text("webhook_id"))
	require.Equal(c.t, request.Header.Get("X-Webhook-Event"), envelope.text("event_type"))
	require.WithinDuration(c.t, time.Now(), envelope.moment("timestamp"), time.Minute)
	return request, envelope
}

func (c *clinic) testsIt() {
	c.received.Script(harness.Response{Status: 202, Body: []byte("thank you")}, harness.Response{Status: 503, Body: []byte("not now")})
	call := c.post("/webhooks/"+c.webhook+"/test", `{"event_type": "patient.created", "test_data": {"id": 9007199254740993, "price": 10.50}}`).is(200).object()
	request, envelope := c.next()
	envelope.has(`{"event_type": "patient.created", "event_data": {"id": 9007199254740993, "price": 10.50}, "attempt": 1}`)
	call.consistsOf(callMembers).has(`{"webhook_id": "` + c.webhook + `", "delivery_id": "` + request.ID() + `", "attempt": 1, "url": "` + c.received.URL() + `/heart",
		"method": "POST", "status": 202, "response_body": "thank you", "error": null, "succeeded": true}`)
	require.Positive(c.t, call.number("duration_ms"))

	failed := c.post("/webhooks/"+c.webhook+"/test", "").is(200).object()
	_, envelope = c.next()
	envelope.has(`{"event_type": "webhook.test", "event_data": {"test": true}}`)
	failed.has(`{"status": 503, "response_body": "not now", "succeeded": false}`)
	require.NotEmpty(c.t, failed.text("error"))
}

// triggersAnEvent publishes one that the filters let through and one that they do not, and returns the delivery.
func (c *clinic) triggersAnEvent() string {
	trigger := func(department string) string {
		made := c.post("/webhooks/events/trigger", `{"event_type": "patient.created", "event_data": {"department": "`+department+`",
			"id": 9007199254740993, "amount": 1200.50, "rate": 0.10, "huge": 123456789012345678901234567890.123}, "source": "clinic",
			"correlation_id": "visit-7"}`).is(202).object()
		made.consistsOf("event_id event_type").has(`{"event_type": "patient.created"}`)
		return made.text("event_id")
	}
	c.received.Script(harness.Response{Body: []byte("ok")})
	trigger("radiology")
	event := trigger("cardiology")
	request, envelope := c.next()
	envelope.has(`{"event_type": "patient.created", "attempt": 1, "event_data": {"department": "cardiology", "id": 9007199254740993, "amount": 1200.50,
		"rate": 0.10, "huge": 123456789012345678901234567890.123}}`)
	require.Equal(c.t, "application/json", request.Header.Get("Content-Type"))
	require.Regexp(c.t, `^walhook/`, request.Header.Get("User-Agent"))
	harness.Eventually(c.t, soon, "the call is recorded", func() bool {
		calls := c.get("/webhooks/" + c.webhook + "/calls?limit=1").is(200).items()
		return len(calls) == 1 && calls[0].text("event_id") == event
	})
	return request.ID()
}

func (c *clinic) readsStatistics() {
	for path, more := range map[string]string{"/webhooks/" + c.webhook + "/stats": "webhook_id", "/webhooks/system/stats": "webhooks active_webhooks"} {
		stats := c.get(path).is(200).object()
		stats.consistsOf(statsMembers + " " + more).has(`{"total": 3, "success": 2, "failed": 1, "pending": 0, "dead": 1, "consecutive_failures": 0}`)
		require.InDelta(c.t, 2.0/3, stats.number("success_rate"), 0.001)
		require.Positive(c.t, stats.number("mean_ms"))
		require.Positive(c.t, stats.number("p95_ms"))
		require.WithinDuration(c.t, time.Now(), stats.moment("last_attempt_at"), time.Minute)
		for _, window := range []string{"last_hour", "last_day", "last_week"} {
			stats.part(window).consistsOf(numberMembers).has(`{"total": 3, "success": 2, "failed": 1}`)
		}
	}
	c.get("/webhooks/" + c.webhook + "/stats").is(200).object().has(`{"webhook_id": "` + c.webhook + `"}`)
	c.get("/webhooks/system/stats").is(200).object().has(`{"webhooks": 3, "active_webhooks": 1}`)
}

func (c *clinic) readsCalls(delivery string) {
	path := "/webhooks/" + c.webhook + "/calls"
	calls := c.get(path).is(200).items()
	require.Len(c.t, calls, 3)
	newest := calls[0].consistsOf(callMembers).has(`{"delivery_id": "` + delivery + `", "webhook_id": "` + c.webhook + `", "method": "POST", "status": 200,
		"response_body": "ok", "error": null, "succeeded": true, "attempt": 1, "url": "` + c.received.URL() + `/heart"}`)
	newest.part("request_headers").has(`{"Authorization": "[redacted]", "X-Clinic": "south", "Content-Type": "application/json", "X-Webhook-Signature": "sha256=[redacted]", "X-Webhook-ID": "` + delivery + `"}`)
	require.Contains(c.t, newest.text("payload"), "123456789012345678901234567890.123")
	parsed(c.t, newest.text("payload")).part("event_data").has(`{"id": 9007199254740993, "amount": 1200.50}`)

	require.Len(c.t, c.get(path+"?limit=2").is(200).items(), 2)
	require.Len(c.t, c.get(path+"?status=success").is(200).items(), 2)
	require.Len(c.t, c.get(path+"?status=failed").is(200).items(), 1)
	require.Len(c.t, c.get(path+"?status=202").is(200).items(), 1)
	at := newest.moment("attempted_at").UTC().Format(time.RFC3339Nano)
	require.Len(c.t, c.get(path+"?since="+at).is(200).items(), 1, "since then, that one included")
	require.Len(c.t, c.get(path+"?until="+at).is(200).items(), 2, "before then")
}

func (c *clinic) keepsACatalogue() {
	types := []struct{ number, name string }{
		{"40", "patient.created"}, {"41", "patient.updated"}, {"42", "visit.started"}, {"43", "visit.ended"}, {"44", "invoice.paid"},
	}
	for _, one := range types {
		c.post("/event-types", `{"name": "`+one.name+`", "number": `+one.number+`, "description": "of the clinic"}`).is(201).
			object().consistsOf("name number description schema validation").
			has(`{"name": "` + one.name + `", "number": ` + one.number + `, "description": "of the clinic", "schema": null, "validation": "warn"}`)
	}
	listed := c.get("/event-types").is(200).items()
	require.Len(c.t, listed, len(types))
	c.post("/event-types", `{"name": "other", "number": 44}`).refused(409, "")

	strict := `{"name": "bed.freed", "validation": "reject", "schema": {"type": "object", "required": ["bed"], "properties": {"bed": {"type": "integer"}}}}`
	c.post("/event-types", strict).is(201)
	c.post("/event-types", `{"name": "bed.taken", "validation": "warn", "schema": {"type": "object", "required": ["bed"]}}`).is(201)
	c.post("/webhooks/events/trigger", `{"event_type": "bed.freed", "event_data": {"bed": "seven"}}`).refused(422, "body.event_data")
	warned := c.post("/webhooks/events/trigger", `{"event_type": "bed.taken", "event_data": {}}`).is(202).object()
	require.Len(c.t, warned.members["warnings"], 1)
}

func (c *clinic) rotatesTheSecret() {
	c.post("/webhooks/"+c.webhook+"/rotate-secret", `{"overlap": 60}`).refused(422, "body.new_secret")
	rotated := c.post("/webhooks/"+c.webhook+"/rotate-secret", `{"new_secret": "another horse and battery", "overlap": 600}`).is(200).object()
	rotated.has(`{"has_secret": true}`)
	require.WithinDuration(c.t, time.Now().Add(10*time.Minute), rotated.moment("previous_secret_expires_at"), soon)
	c.secrets = append(c.secrets, "another horse and battery")
	c.post("/webhooks/"+c.webhook+"/test", "").is(200).object().has(`{"succeeded": true}`)
	c.next()
}

func (c *clinic) replaysAndRedelivers(delivery string) {
	since := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
	replay := c.post("/webhooks/"+c.webhook+"/replay", `{"since": "`+since+`"}`).is(202).object().consistsOf("replay_id")
	require.NoError(c.t, uuid.Validate(replay.text("replay_id")))
	request, envelope := c.next()
	require.Equal(c.t, delivery, request.ID(), "a receiver knows it again by its id")
	envelope.part("event_data").has(`{"id": 9007199254740993, "amount": 1200.50}`)

	harness.Eventually(c.t, soon, "the replay is recorded", func() bool {
		return c.get("/webhooks/"+c.webhook+"/stats").is(200).object().number("total") == 5
	})
	c.post("/deliveries/"+delivery+"/redeliver", "").is(202).object().consistsOf("delivery_id").has(`{"delivery_id": "` + delivery + `"}`)
	request, _ = c.next()
	require.Equal(c.t, delivery, request.ID())
	c.post("/deliveries/"+uuid.NewString()+"/redeliver", "").refused(404, "")
}

func (c *clinic) looksAtTheSlot() {
	slots := c.get("/replication").is(200).items()
	require.Len(c.t, slots, 1)
	slot := slots[0].consistsOf(slotMembers).has(`{"active": true, "wal_status": "reserved", "dead_letters": 1}`)
	require.Regexp(c.t, `^walhook_`, slot.text("slot_name"))
	require.Regexp(c.t, `^[0-9A-F]+/[0-9A-F]+$`, slot.text("checkpoint_lsn"))
	require.Regexp(c.t, `^[0-9A-F]+/[0-9A-F]+$`, slot.text("confirmed_lsn"))
	for _, name := range []string{"lag_bytes", "retained_bytes", "lag_seconds", "queue_depth", "oldest_pending_seconds"} {
		require.GreaterOrEqual(c.t, slot.number(name), 0.0, name)
	}
}

func (c *clinic) removesIt() {
	a := c.send(http.MethodDelete, "/webhooks/"+c.webhook, "").is(204)
	require.Empty(c.t, a.text)
	c.get("/webhooks/"+c.webhook).refused(404, "")
	c.send(http.MethodDelete, "/webhooks/"+c.webhook, "").refused(404, "")
	require.Len(c.t, c.get("/webhooks/").is(200).items(), 2)
	c.post("/webhooks/events/trigger", `{"event_type": "patient.created", "event_data": {"department": "cardiology"}}`).is(202)
	c.received.Quiet(300 * time.Millisecond)
}
