package api_test

import (
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/api"
)

// attempts makes every delivery one that was attempted at once, as a relay would record it.
const attempts = `
CREATE FUNCTION attempt() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO outbox.attempts (attempted_at, committed_at, delivery_id, event_id, subscription_id, revision, epoch, duration_us, attempt, status, error, response_body)
  SELECT clock_timestamp(), now(), NEW.id, NEW.event_id, s.id, s.revision, 1, 1500, 1, 503, 'the receiver answered 503', 'busy'
  FROM outbox.subscriptions s WHERE s.id = NEW.subscription_id;
  DELETE FROM outbox.deliveries WHERE id = NEW.id;
  RETURN NULL;
END $$;
CREATE TRIGGER attempt AFTER INSERT ON outbox.deliveries FOR EACH ROW EXECUTE FUNCTION attempt();`

func TestTestReturnsWhatCameBack(t *testing.T) {
	t.Parallel()
	s := newService(t)
	_, err := s.db.Exec(t.Context(), attempts)
	require.NoError(t, err)
	id := s.create(root, minimal)["id"].(string)
	call := s.do(root, "POST", "/webhooks/"+id+"/test", `{"event_type": "patient.created", "test_data": {"n": 12345678901234567890.10}}`).wants(t, 200).object(t)
	require.Equal(t, false, call["succeeded"])
	require.EqualValues(t, 503, call["status"])
	require.Equal(t, "busy", call["response_body"])
	require.Contains(t, call["payload"], "12345678901234567890.10")
	require.Contains(t, call["payload"], "patient.created")
	call = s.do(root, "POST", "/webhooks/"+id+"/test", "").wants(t, 200).object(t)
	require.Contains(t, call["payload"], "webhook.test")
	s.do(root, "POST", "/webhooks/"+id+"/test", `{"test_data": null}`).wants(t, 200)

	s.do(root, "POST", "/webhooks/"+id+"/test", `{"event_type": "a b"}`).refused(t, 422, "body.event_type")
	s.do(root, "POST", "/webhooks/"+id+"/test", `{"data": 1}`).refused(t, 422, "body.data")
	s.do(root, "POST", "/webhooks/"+id+"/deactivate", "").wants(t, 200)
	s.do(root, "POST", "/webhooks/"+id+"/test", "").refused(t, 409, "")

	items := s.do(root, "GET", "/webhooks/"+id+"/calls?limit=2", "").wants(t, 200).object(t)
	require.Len(t, items["items"], 2)
	rest := s.do(root, "GET", "/webhooks/"+id+"/calls?limit=2&cursor="+items["next_cursor"].(string), "").wants(t, 200).object(t)
	require.Len(t, rest["items"], 1)
	for query, n := range map[string]int{
		"status=failed": 3, "status=success": 0, "status=503": 3, "status=200": 0, "since=2020-01-01T00:00:00Z": 3, "until=2020-01-01T00:00:00%2B02:00": 0,
	} {
		require.Len(t, s.do(root, "GET", "/webhooks/"+id+"/calls?"+query, "").wants(t, 200).object(t)["items"], n, query)
	}
	for query, location := range map[string]string{
		"status=ok": "query.status", "status=99": "query.status", "since=yesterday": "query.since", "until=2020-01-01T00:00:00+02:00": "query.until", "limit=0": "query.limit",
	} {
		s.do(root, "GET", "/webhooks/"+id+"/calls?"+query, "").refused(t, 422, location)
	}
	s.do(root, "POST", "/deliveries/"+call["delivery_id"].(string)+"/redeliver", "")
	s.do(root, "POST", "/deliveries/"+uuid.NewString()+"/redeliver", "").refused(t, 404, "")
}

func TestStats(t *testing.T) {
	t.Parallel()
	s := newService(t)
	id := s.create(root, minimal)["id"].(string)
	one := s.do(root, "GET", "/webhooks/"+id+"/stats", "").wants(t, 200).object(t)
	require.Equal(t, id, one["webhook_id"])
	require.EqualValues(t, 0, one["total"])
	require.Nil(t, one["success_rate"])
	require.Contains(t, one, "last_hour")
	all := s.do(root, "GET", "/webhooks/system/stats/", "").wants(t, 200).object(t)
	require.EqualValues(t, 1, all["webhooks"])
}

func TestRedelivery(t *testing.T) {
	t.Parallel()
	s := newService(t)
	id := s.create(root, minimal)["id"].(string)
	delivery := uuid.NewString()
	_, err := s.db.Exec(t.Context(), `INSERT INTO outbox.dead_letters (id, subscription_id, event_id, type, payload, tenant, emitted, created_at, committed_at, commit_lsn, commit_index, died_at, attempts)
		VALUES ($1, $2, gen_random_uuid(), 'x', '{}', '', false, now(), now(), '0/1', 0, now(), 1)`, delivery, id)
	require.NoError(t, err)
	s.do(root, "POST", "/deliveries/"+delivery+"/redeliver", "").wants(t, 202)
	require.Equal(t, 1, s.count(t.Context(), "SELECT count(*) FROM outbox.deliveries WHERE id = $1", delivery))
}

func TestTrigger(t *testing.T) {
	t.Parallel()
	s := newService(t)
	published := s.do(root, "POST", "/webhooks/events/trigger", `{"event_type": "patient.created", "event_data": {"n": 12345678901234567890.10, "e": 1e2, "s": "ä\ud83d\ude00"},
		"key": "42", "source": "clinic", "correlation_id": "c", "headers": {"traceparent": "00-x"}, "tenant": "t"}`).wants(t, 202).object(t)
	require.Equal(t, "patient.created", published["event_type"])
	require.Equal(t, 1, s.count(t.Context(), `SELECT count(*) FROM outbox.events WHERE id = $1 AND type = 'patient.created' AND key = '42' AND source = 'clinic'
		AND correlation_id = 'c' AND headers = '{"traceparent": "00-x"}' AND tenant = 't' AND payload ->> 'n' = '12345678901234567890.10' AND payload ->> 's' = 'ä😀'`, published["event_id"]))
	for _, data := range []string{"null", "1", `"x"`, "[]", "9007199254740993", strings.Repeat("[", 900) + strings.Repeat("]", 900)} {
		id := s.do(root, "POST", "/webhooks/events/trigger", `{"event_type": "x", "event_data": `+data+`}`).wants(t, 202).object(t)["event_id"]
		require.Equal(t, 1, s.count(t.Context(), "SELECT count(*) FROM outbox.events WHERE id = $1 AND payload = $2", id, data))
	}
	id := s.do(root, "POST", "/webhooks/events/trigger", `{"event_type": "x", "key": null}`).wants(t, 202).object(t)["event_id"]
	require.Equal(t, 1, s.count(t.Context(), "SELECT count(*) FROM outbox.events WHERE id = $1 AND payload = '{}' AND key IS NULL", id))
	for body, location := range map[string]string{
		`{}`: "body.event_type", `{"event_type": ""}`: "body.event_type", `{"event_type": null}`: "body.event_type", `{"event_type": "a b"}`: "body.event_type",
		`{"event_type": "x", "data": 1}`: "body.data", `{"event_type": "x", "event_type": "y"}`: "body.event_type", `{"event_type": "x", "key": 1}`: "body.key",
		`{"event_type": "x", "event_data": "\u0000"}`: "body", `{"event_type": "x", "event_data": "\udead"}`: "body", `{"event_type": "x", "event_data": "\ud800\ud800"}`: "body",
		`{"event_type": "x", "event_data": 1e999999}`: "body.event_data", `{"event_type": "x", "tenant": "` + strings.Repeat("t", 256) + `"}`: "body.tenant",
		`{"event_type": "x", "event_data": ` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}`: "body", `[]`: "body",
	} {
		s.do(root, "POST", "/webhooks/events/trigger", body).refused(t, 422, location)
	}
	s.do(root, "POST", "/webhooks/events/trigger", strings.Repeat("[", 100_000)).refused(t, 400, "body")
	s.do(root, "POST", "/webhooks/events/trigger", strings.Repeat("[", 20_000)+strings.Repeat("]", 20_000)).refused(t, 400, "body")
}

func TestLargestEvents(t *testing.T) {
	t.Parallel()
	s := newService(t)
	body := func(n int) string {
		return `{"event_type": "x", "event_data": "` + strings.Repeat("x", n-2) + `"}`
	}
	s.do(root, "POST", "/webhooks/events/trigger", body(10<<20-2)).wants(t, 202) // headers count as {}
	s.do(root, "POST", "/webhooks/events/trigger", body(10<<20+1)).refused(t, 413, "body.event_data")
	s.do(root, "POST", "/webhooks/events/trigger", body(api.LargeBody)).refused(t, 413, "")
	require.Equal(t, 1, s.count(t.Context(), "SELECT count(*) FROM outbox.events"))
}

func TestEventTypes(t *testing.T) {
	t.Parallel()
	s := newService(t)
	made := s.do(root, "POST", "/event-types", `{"name": "patient.created", "number": 7, "description": "d", "validation": "reject",
		"schema": {"type": "object", "required": ["id"], "properties": {"id": {"minimum": 12345678901234567890}}}}`).wants(t, 201).object(t)
	require.EqualValues(t, 7, made["number"])
	s.do(root, "POST", "/event-types", `{"name": "patient.created"}`).refused(t, 409, "")
	s.do(root, "POST", "/event-types/", `{"name": "other", "schema": null, "number": null}`).wants(t, 201)
	list := s.do(root, "GET", "/event-types", "").wants(t, 200)
	require.Len(t, list.object(t)["items"], 2)
	require.Contains(t, string(list.text), "12345678901234567890")
	s.do(root, "POST", "/webhooks/events/trigger", `{"event_type": "patient.created", "event_data": {}}`).refused(t, 422, "body.event_data")
	for body, location := range map[string]string{
		`{}`: "body.name", `{"name": "a b"}`: "body.name", `{"name": "a", "number": -1}`: "body.number", `{"name": "a", "number": 1.5}`: "body.number",
		`{"name": "a", "number": 99999999999}`: "body.number", `{"name": "a", "schema": {"type": 5}}`: "body.schema", `{"name": "a", "schema": "x"}`: "body.schema",
		`{"name": "a", "validation": "never"}`: "body.validation", `{"name": "a", "id": 1}`: "body.id",
	} {
		s.do(root, "POST", "/event-types", body).refused(t, 422, location)
	}
}

func TestReplication(t *testing.T) {
	t.Parallel()
	s := newService(t)
	require.JSONEq(t, `{"items": []}`, string(s.do(root, "GET", "/replication", "").wants(t, 200).text))
}
