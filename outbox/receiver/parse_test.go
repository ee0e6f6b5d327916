package receiver_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/outbox/receiver"
)

var committed = time.Date(2026, 7, 1, 0, 0, 0, 500_000_000, time.UTC)

// header makes a request's header of names and values in turn.
func header(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i+1 < len(pairs); i += 2 {
		h.Set(pairs[i], pairs[i+1])
	}
	return h
}

// sent are the headers of one of walhook's requests.
func sent(more ...string) http.Header {
	return header(append([]string{"Content-Type", "application/json", "X-Webhook-ID", "d-1", "X-Webhook-Event", "a.b", "X-Webhook-Attempt", "3"}, more...)...)
}

const (
	data      = `{"big": 123456789012345678901234567890, "amount":1250.50}`
	envelope2 = `{"event_type":"a.b","event_data":` + data + `,"webhook_id":"d-1","timestamp":"2026-07-01T00:00:00.500000Z","attempt":2,` +
		`"version":2,"event_id":"e-1","key":"k","tenant":"t","source":null,"correlation_id":"c","created_at":"2026-07-01T00:00:00.500000Z"}`
	standardBody = `{"type":"a.b","timestamp":"2026-07-01T00:00:00.500000Z","data":` + data + `}`
	structured   = `{"specversion":"1.0","id":"d-1","source":"walhook","type":"a.b","time":"2026-07-01T00:00:00.500000Z","subject":"k",` +
		`"correlationid":"c","tenant":"t","datacontenttype":"application/json","data":` + data + `}`
)

func TestParseKnowsEveryFormat(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		header http.Header
		body   string
		want   receiver.Event
	}{
		"envelope 1": {sent(), strings.Replace(envelope1, `{"n":1.50}`, data, 1),
			receiver.Event{ID: "d-1", Type: "a.b", Time: committed, Attempt: 2, Version: 1}},
		"envelope 2": {sent(), envelope2, receiver.Event{ID: "d-1", Type: "a.b", Time: committed, Attempt: 2, Version: 2,
			EventID: "e-1", Key: "k", Tenant: "t", CorrelationID: "c", CreatedAt: committed}},
		"standard":                {sent(), standardBody, receiver.Event{ID: "d-1", Type: "a.b", Time: committed, Attempt: 3}},
		"standard, by others":     {header("webhook-id", "msg_1"), standardBody, receiver.Event{ID: "msg_1", Type: "a.b", Time: committed}},
		"cloudevents":             {sent("Content-Type", "application/cloudevents+json; charset=utf-8"), structured, receiver.Event{ID: "d-1", Type: "a.b", Time: committed, Attempt: 3, Key: "k", Tenant: "t", Source: "walhook", CorrelationID: "c"}},
		"cloudevents, by others":  {header("Content-Type", "application/cloudevents+json"), structured, receiver.Event{ID: "walhook d-1", Type: "a.b", Time: committed, Key: "k", Tenant: "t", Source: "walhook", CorrelationID: "c"}},
		"cloudevents, base64":     {sent("Content-Type", "application/cloudevents+json"), `{"specversion":"1.0","id":"d-1","source":"s","type":"a.b","data_base64":"eyJiaWciOiAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEyMzQ1Njc4OTAsICJhbW91bnQiOjEyNTAuNTB9"}`, receiver.Event{ID: "d-1", Type: "a.b", Attempt: 3, Source: "s"}},
		"binary":                  {sent("ce-specversion", "1.0", "ce-id", "d-1", "ce-source", "/s", "ce-type", "a.b", "ce-subject", "Euro%20%E2%82%AC", "ce-time", "2026-07-01T00:00:00.500000Z"), data, receiver.Event{ID: "d-1", Type: "a.b", Time: committed, Attempt: 3, Key: "Euro €", Source: "/s"}},
		"raw":                     {sent(), data, receiver.Event{ID: "d-1", Type: "a.b", Attempt: 3}},
		"raw, type not in ASCII":  {sent("X-Webhook-Event", "%C3%A9.b"), data, receiver.Event{ID: "d-1", Type: "é.b", Attempt: 3}},
		"github":                  {header("X-GitHub-Event", "push", "X-GitHub-Delivery", "gh-1"), data, receiver.Event{ID: "gh-1", Type: "push"}},
		"shopify":                 {header("X-Shopify-Topic", "orders/create", "X-Shopify-Webhook-Id", "s-1"), data, receiver.Event{ID: "s-1", Type: "orders/create"}},
		"text":                    {header("Content-Type", "text/plain"), data, receiver.Event{}},
		"batch of one":            {sent("X-Webhook-Batch", "1"), "[" + envelope2 + "]", receiver.Event{ID: "d-1", Type: "a.b", Time: committed, Attempt: 2, Version: 2, EventID: "e-1", Key: "k", Tenant: "t", CorrelationID: "c", CreatedAt: committed}},
		"batch of one, raw":       {sent("X-Webhook-Batch", "1"), "[" + data + "]", receiver.Event{ID: "d-1", Type: "a.b", Attempt: 3}},
		"batch of mixed types":    {sent("X-Webhook-Batch", "1", "X-Webhook-Event", "batch"), "[" + data + "]", receiver.Event{ID: "d-1", Attempt: 3}},
		"batch of CloudEvents":    {sent("X-Webhook-Batch", "1", "Content-Type", "application/cloudevents-batch+json"), "[" + structured + "]", receiver.Event{ID: "d-1", Type: "a.b", Time: committed, Attempt: 3, Key: "k", Tenant: "t", Source: "walhook", CorrelationID: "c"}},
		"batch of others' events": {header("Content-Type", "application/cloudevents-batch+json"), "[" + structured + "]", receiver.Event{ID: "walhook d-1", Type: "a.b", Time: committed, Key: "k", Tenant: "t", Source: "walhook", CorrelationID: "c"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			events, err := receiver.Parse(c.header, []byte(c.body))
			require.NoError(t, err)
			require.Len(t, events, 1)
			c.want.Header, c.want.Data = c.header, json.RawMessage(data)
			require.Equal(t, c.want, events[0])
		})
	}
}

// A payload that resembles a format is still the payload: what it repeats of the headers must agree.
func TestParseIsNotTakenIn(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		strings.Replace(envelope1, "d-1", "d-2", 1), `{"event_type":"a.b","event_data":{}}`, strings.Replace(standardBody, "a.b", "a.c", 1),
		`{"type":"a.b","timestamp":"yesterday","data":{}}`, strings.Replace(standardBody, "{", `{"more":1,`, 1), structured, `"text"`, "[1, 2]", "null",
	} {
		events, err := receiver.Parse(sent(), []byte(text))
		require.NoError(t, err)
		require.Equal(t, receiver.Event{ID: "d-1", Type: "a.b", Attempt: 3, Data: json.RawMessage(text), Header: sent()}, events[0])
	}
	events, err := receiver.Parse(header("Stripe-Signature", "t=1,v1=00"), []byte(`{"id":"evt_1","type":"invoice.paid","data":{}}`))
	require.NoError(t, err)
	require.Equal(t, []string{"invoice.paid", ""}, []string{events[0].Type, events[0].ID})
}

// A CloudEvent in binary mode has its id in a header that no signature covers.
func TestParsePrefersTheSignedID(t *testing.T) {
	t.Parallel()
	h := header("ce-specversion", "1.0", "ce-id", "d-2", "ce-source", "/a", "ce-type", "a.b", "webhook-id", "d-1")
	events, err := receiver.Parse(h, []byte("{}"))
	require.NoError(t, err)
	require.Equal(t, "d-1", events[0].ID)
}

func TestParseNamesElementsOfABatch(t *testing.T) {
	t.Parallel()
	second := strings.Replace(envelope2, "d-1", "d-2", 1)
	events, err := receiver.Parse(sent("X-Webhook-ID", "b-1", "X-Webhook-Batch", "3"), []byte("["+envelope2+","+second+",{}]"))
	require.NoError(t, err)
	require.Equal(t, []string{"d-1", "d-2", "b-1/2"}, []string{events[0].ID, events[1].ID, events[2].ID})
}

func TestParseRefusesWhatItCannotBe(t *testing.T) {
	t.Parallel()
	structuredHeader, batch := sent("Content-Type", "application/cloudevents+json"), sent("X-Webhook-Batch", "2")
	for _, c := range []struct {
		header http.Header
		body   string
	}{
		{sent(), "{"}, {sent(), strings.Replace(envelope1, `"attempt":2`, `"attempt":"2"`, 1)}, {sent(), strings.Replace(envelope1, "2026", "soon", 1)},
		{structuredHeader, "{}"}, {structuredHeader, "["}, {structuredHeader, strings.Replace(structured, `"1.0"`, `"0.3"`, 1)},
		{batch, "[1]"}, {batch, "{}"}, {batch, "[1,"}, {sent("X-Webhook-Batch", "1"), "[" + strings.Replace(envelope1, "2026", "soon", 1) + "]"},
		{sent("Content-Type", "application/cloudevents-batch+json"), "[{}]"},
		{sent("X-Webhook-Batch", "10001"), "[" + strings.Repeat("1,", 10_000) + "1]"},
		{sent("ce-specversion", "1.0"), data}, {sent("ce-specversion", "1.0", "ce-id", "1", "ce-source", "s", "ce-type", "t", "ce-time", "soon"), data},
	} {
		_, err := receiver.Parse(c.header, []byte(c.body))
		require.ErrorIs(t, err, receiver.ErrFormat, c.body)
	}
}

// What the CloudEvents SDK sends is understood.
func TestParseUnderstandsTheCloudEventsSDK(t *testing.T) {
	t.Parallel()
	e := cloudevents.NewEvent()
	e.SetID("1")
	e.SetSource("/sdk")
	e.SetType("a.b")
	e.SetSubject("k")
	e.SetTime(committed)
	e.SetExtension("correlationid", "c")
	require.NoError(t, e.SetData("application/json", json.RawMessage(data)))
	text, err := json.Marshal(e)
	require.NoError(t, err)
	events, err := receiver.Parse(header("Content-Type", "application/cloudevents+json"), text)
	require.NoError(t, err)
	require.Equal(t, []string{"/sdk 1", "a.b", "k", "c", "/sdk"}, []string{events[0].ID, events[0].Type, events[0].Key, events[0].CorrelationID, events[0].Source})
	require.JSONEq(t, data, string(events[0].Data))
	require.True(t, committed.Equal(events[0].Time))
}

func TestDecode(t *testing.T) {
	t.Parallel()
	e := receiver.Event{ID: "d-1", Type: "a.b", Data: json.RawMessage(data)}
	var got struct{ Big, Amount json.Number }
	require.NoError(t, e.Decode(&got))
	require.Equal(t, []json.Number{"123456789012345678901234567890", "1250.50"}, []json.Number{got.Big, got.Amount})
	var wrong struct{ Amount int }
	require.ErrorContains(t, e.Decode(&wrong), "data of a.b d-1")
}

// FuzzParse: whatever comes, Parse neither panics nor invents: it gives events or says why not, and the data of
// a JSON body is JSON.
func FuzzParse(f *testing.F) {
	for _, text := range []string{envelope1, envelope2, standardBody, structured, data, "[" + envelope2 + "]", "[]", "[1,{}]", "null", ""} {
		f.Add("application/json", "", "d-1", text)
		f.Add("application/cloudevents-batch+json", "1", "", text)
		f.Add("application/cloudevents+json", "", "", text)
	}
	f.Fuzz(func(t *testing.T, media, batch, id, text string) {
		for _, more := range [][]string{nil, {"ce-specversion", "1.0", "ce-id", id, "ce-source", media, "ce-type", batch}} {
			h := header(append([]string{"Content-Type", media, "X-Webhook-Batch", batch, "X-Webhook-ID", id}, more...)...)
			events, err := receiver.Parse(h, []byte(text))
			if err != nil {
				require.ErrorIs(t, err, receiver.ErrFormat)
				continue
			}
			for _, e := range events {
				require.NotNil(t, e.Header)
				require.True(t, len(e.Data) == 0 || json.Valid(e.Data) || !json.Valid([]byte(text)) || strings.Contains(text, "data_base64"))
			}
		}
	})
}
