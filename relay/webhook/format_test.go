package webhook_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/webhook"
)

// longNumbers is a payload whose numbers no float64 and no re-encoding keeps.
const longNumbers = `{"n":123456789012345678901234567890, "f":1.10,"e":1E400}`

// fullDelivery has everything that an event can have.
func fullDelivery() *delivery.Delivery {
	d := newDelivery(longNumbers)
	d.Attempts = 1
	e := d.Event
	e.ID = uuid.MustParse("0192f0c1-2345-7678-9abc-def012345678")
	e.Key, e.Tenant, e.Source, e.CorrelationID = "patient/7", "north", "/clinics/7", "corr-1"
	e.CreatedAt = time.Date(2026, 3, 1, 14, 29, 59, 5_000, time.FixedZone("", 2*3600))
	e.Headers = []byte(`{"traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01","tracestate":"a=1, b=2"}`)
	return d
}

// post sends one batch and returns what the receiver got.
func post(t *testing.T, s *webhook.Sender, got chan request, set *delivery.Settings, batch ...*delivery.Delivery) request {
	t.Helper()
	out := s.Send(t.Context(), batch, set)
	checkOutcome(t, out)
	require.True(t, out.Succeeded(), out.Error)
	r := <-got
	require.Equal(t, webhook.Sign(set.Secret, r.body), r.header.Get("X-Webhook-Signature"))
	return r
}

func TestFormats(t *testing.T) {
	url, got := receiver(t, ok)
	s := newSender(t)
	const v1 = `{"event_type":"patient.created","event_data":` + longNumbers +
		`,"webhook_id":"0192f0c1-2345-8678-9abc-def012345678","timestamp":"2026-03-01T12:30:00.120000Z","attempt":2`
	for name, test := range map[string]struct {
		format  string
		version int
		change  func(*delivery.Event)
		want    string
	}{
		"envelope":           {"", 0, nil, v1 + `}`},
		"envelope version 1": {"envelope", 1, nil, v1 + `}`},
		"envelope version 2": {"envelope", 2, nil, v1 + `,"version":2,"event_id":"0192f0c1-2345-7678-9abc-def012345678",` +
			`"key":"patient/7","tenant":"north","source":"/clinics/7","correlation_id":"corr-1","created_at":"2026-03-01T12:29:59.000005Z"}`},
		"envelope version 2 of little": {"envelope", 2, func(e *delivery.Event) { e.Key, e.Tenant, e.Source, e.CorrelationID = "", "", "", "" },
			v1 + `,"version":2,"event_id":"0192f0c1-2345-7678-9abc-def012345678",` +
				`"key":null,"tenant":"","source":null,"correlation_id":null,"created_at":"2026-03-01T12:29:59.000005Z"}`},
		"standard": {"standard", 2, nil, `{"type":"patient.created","timestamp":"2026-03-01T12:30:00.120000Z","data":` + longNumbers + `}`},
		"standard without a payload": {"standard", 1, func(e *delivery.Event) { e.Payload = nil },
			`{"type":"patient.created","timestamp":"2026-03-01T12:30:00.120000Z","data":null}`},
		"raw": {"raw", 1, nil, longNumbers},
	} {
		t.Run(name, func(t *testing.T) {
			set, d := settings(url), fullDelivery()
			set.PayloadFormat, set.PayloadVersion = test.format, test.version
			if test.change != nil {
				test.change(d.Event)
			}
			r := post(t, s, got, set, d)
			require.Equal(t, test.want, string(r.body))
			require.Equal(t, "application/json", r.header.Get("Content-Type"))
			require.Empty(t, r.header.Get("X-Webhook-Batch"))

			set.BatchSize = 2
			d.Event.Payload = append([]byte(nil), d.Event.Payload...)
			r = post(t, s, got, set, d)
			require.Equal(t, "["+test.want+"]", string(r.body), "an array, also of one")
			require.Equal(t, "1", r.header.Get("X-Webhook-Batch"))
			require.Equal(t, d.ID.String(), r.header.Get("X-Webhook-ID"))
			require.NotEmpty(t, r.header.Get("Traceparent"))
		})
	}
}

// TestBodiesAreTheSameOnEveryAttempt: only the envelope counts attempts.
func TestBodiesAreTheSameOnEveryAttempt(t *testing.T) {
	url, got := receiver(t, ok)
	s := newSender(t)
	for _, format := range []string{"standard", "cloudevents", "cloudevents-binary", "raw"} {
		set, d := settings(url), fullDelivery()
		set.PayloadFormat = format
		first := post(t, s, got, set, d)
		d.Attempts++
		again := post(t, s, got, set, d)
		require.Equal(t, string(first.body), string(again.body), format)
		require.Equal(t, "3", again.header.Get("X-Webhook-Attempt"))
		again.header.Set("X-Webhook-Attempt", "2")
		require.Equal(t, first.header, again.header, format)
	}
}

// twins returns two deliveries that differ in everything that a batch says of them.
func twins() (first, second *delivery.Delivery) {
	first, second = fullDelivery(), newDelivery(`[2]`)
	second.ID = uuid.MustParse("0192f0c1-9999-8678-9abc-def012345678")
	second.Attempts = 4
	return first, second
}

func TestBatches(t *testing.T) {
	url, got := receiver(t, ok)
	s := newSender(t)
	first, second := twins()
	empty := newDelivery("")
	for format, want := range map[string]string{
		"raw": `[` + longNumbers + `,[2],null]`,
		"envelope": `[{"event_type":"patient.created","event_data":` + longNumbers + `,"webhook_id":"0192f0c1-2345-8678-9abc-def012345678","timestamp":"2026-03-01T12:30:00.120000Z","attempt":2},` +
			`{"event_type":"patient.created","event_data":[2],"webhook_id":"0192f0c1-9999-8678-9abc-def012345678","timestamp":"2026-03-01T12:30:00.120000Z","attempt":5},` +
			`{"event_type":"patient.created","event_data":null,"webhook_id":"0192f0c1-2345-8678-9abc-def012345678","timestamp":"2026-03-01T12:30:00.120000Z","attempt":1}]`,
		"standard": `[{"type":"patient.created","timestamp":"2026-03-01T12:30:00.120000Z","data":` + longNumbers + `},` +
			`{"type":"patient.created","timestamp":"2026-03-01T12:30:00.120000Z","data":[2]},` +
			`{"type":"patient.created","timestamp":"2026-03-01T12:30:00.120000Z","data":null}]`,
	} {
		set := settings(url)
		set.PayloadFormat = format
		r := post(t, s, got, set, first, second, empty)
		require.Equal(t, want, string(r.body))
		require.True(t, json.Valid(r.body))
		require.Equal(t, "application/json", r.header.Get("Content-Type"))
	}
}

func TestHeadersOfABatch(t *testing.T) {
	url, got := receiver(t, ok)
	s := newSender(t)
	first, second := twins()
	id := delivery.BatchID([]uuid.UUID{first.ID, second.ID}).String()
	set := settings(url)
	for signature, header := range map[string]string{
		"standard": "webhook-id", "github": "X-GitHub-Delivery", "shopify": "X-Shopify-Webhook-Id", "none": "X-Webhook-ID",
	} {
		set.Signature, set.Secret = signature, ""
		out := s.Send(t.Context(), []*delivery.Delivery{first, second}, set)
		require.True(t, out.Succeeded(), out.Error)
		r := <-got
		require.Equal(t, id, r.header.Get(header), signature)
		require.Equal(t, []string{id, "patient.created", "5", "2"}, []string{r.header.Get("X-Webhook-ID"),
			r.header.Get("X-Webhook-Event"), r.header.Get("X-Webhook-Attempt"), r.header.Get("X-Webhook-Batch")})
		require.Empty(t, r.header.Get("Traceparent"), "there is no one trace")
	}
	second.Event.Type = "patient.moved"
	set.Signature = "github"
	out := s.Send(t.Context(), []*delivery.Delivery{first, second}, set)
	require.True(t, out.Succeeded(), out.Error)
	r := <-got
	require.Equal(t, "batch", r.header.Get("X-Webhook-Event"))
	require.Equal(t, "batch", r.header.Get("X-GitHub-Event"))
}

// TestManyInABatch: a thousand large elements arrive whole, with room made for them at once.
func TestManyInABatch(t *testing.T) {
	url, got := receiver(t, ok)
	var batch []*delivery.Delivery
	for range 1000 {
		batch = append(batch, newDelivery(`"`+strings.Repeat("x", 2000)+`"`))
	}
	r := post(t, newSender(t), got, settings(url), batch...)
	var elements []json.RawMessage
	require.NoError(t, json.Unmarshal(r.body, &elements))
	require.Len(t, elements, 1000)
	require.Equal(t, "1000", r.header.Get("X-Webhook-Batch"))
}
