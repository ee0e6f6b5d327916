package webhook_test

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/webhook"
)

func TestEnvelope(t *testing.T) {
	d := newDelivery("")
	d.Event.Type = "say \"hi\"\n\\ \x01 \xff ümlaut"
	d.Event.CommittedAt = time.Date(2026, 7, 1, 1, 2, 3, 456_789_999, time.FixedZone("", 2*3600))
	require.Equal(t,
		`before{"event_type":"say \"hi\"\n\\ \u0001 `+"\uFFFD"+` ümlaut","event_data":null,`+
			`"webhook_id":"0192f0c1-2345-8678-9abc-def012345678","timestamp":"2026-06-30T23:02:03.456789Z","attempt":12}`,
		string(webhook.AppendEnvelope([]byte("before"), d, 12)))
}

// FuzzEnvelope: whatever the event holds, the envelope is JSON and gives it back. Input that is not JSON
// becomes a payload as a JSON string.
func FuzzEnvelope(f *testing.F) {
	f.Add("a.b", []byte(`{"n":123456789012345678901234567890}`), 1, int64(0))
	f.Add("\"\\\x00\xff\u2028<>&", []byte(`"\ud800"`), -1, int64(1<<40))
	f.Add("", []byte(" [1 , 2]\n"), 0, int64(-1))
	f.Fuzz(func(t *testing.T, kind string, payload []byte, attempt int, micros int64) {
		if !json.Valid(payload) {
			payload, _ = json.Marshal(string(payload))
		}
		at := time.UnixMicro(micros % (1 << 52)) // years 1827 to 2112
		d := &delivery.Delivery{ID: uuid.New(), Event: &delivery.Event{Type: kind, Payload: payload, CommittedAt: at}}
		out := webhook.AppendEnvelope(nil, d, attempt)

		var got struct {
			EventType string          `json:"event_type"`
			EventData json.RawMessage `json:"event_data"`
			WebhookID uuid.UUID       `json:"webhook_id"`
			Timestamp time.Time       `json:"timestamp"`
			Attempt   int             `json:"attempt"`
		}
		require.NoError(t, json.Unmarshal(out, &got), "%s", out)
		require.True(t, bytes.Contains(out, append([]byte(`"event_data":`), payload...)))
		require.Equal(t, string(bytes.TrimSpace(payload)), string(got.EventData))
		require.Equal(t, string([]rune(kind)), got.EventType)
		require.Equal(t, d.ID, got.WebhookID)
		require.True(t, at.Equal(got.Timestamp), "%s %s", at, got.Timestamp)
		require.Equal(t, attempt, got.Attempt)
	})
}
