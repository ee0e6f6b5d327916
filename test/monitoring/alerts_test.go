package monitoring_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// A subscription that fails raises an alert: those who named it hear of it, in the relay's own words, and when it is
// over. Whoever takes all events does not, the one that fails least of all.
func TestAlertsAreDelivered(t *testing.T) {
	t.Parallel()
	r := startRelay(t, "WALHOOK_ALERTS_INTERVAL=50ms", "WALHOOK_ALERTS_CONSECUTIVE_FAILURES=2", "WALHOOK_ALERTS_SUCCESS_RATE=0")
	r.do(t, "INSERT INTO outbox.subscriptions (name, url, event_types) VALUES ('alerts', $1 || '/alerts', '{walhook.alert.*}')", r.receiver.URL())
	r.do(t, "INSERT INTO outbox.subscriptions (name, url, max_retries) VALUES ('all', $1 || '/fails', 0)", r.receiver.URL())
	r.do(t, "SELECT outbox.publish('x', '{}') FROM generate_series(1, 3)")
	first := r.WaitFor(`"alert raised"`, soon)
	require.Contains(t, first, `"alert":"consecutive_failures"`)
	require.Contains(t, first, `"level":"warn"`)
	r.receiver.Answer(func(harness.Request) harness.Response { return harness.Response{} })
	r.do(t, "SELECT outbox.publish('x', '{}')")
	require.Contains(t, r.WaitFor(`"alert resolved"`, soon), `"level":"info"`)

	told := map[string]map[string]any{}
	for _, request := range r.receiver.Wait(6, soon) {
		if request.Header.Get("X-Webhook-Event") == "x" {
			continue
		}
		require.Equal(t, "walhook.alert.consecutive_failures", request.Header.Get("X-Webhook-Event"))
		require.Equal(t, "/alerts", request.Path)
		var body struct {
			Data map[string]any `json:"event_data"`
		}
		require.NoError(t, json.Unmarshal(request.Body, &body))
		told[body.Data["state"].(string)] = body.Data
	}
	require.Len(t, told, 2)
	require.Equal(t, "all", told["raised"]["subscription"])
	require.Equal(t, "3 attempts in a row failed", told["raised"]["message"])
	require.Nil(t, told["raised"]["resolved_at"])
	require.NotNil(t, told["resolved"]["resolved_at"])
	require.Equal(t, told["raised"]["raised_at"], told["resolved"]["raised_at"])
	require.Contains(t, get(t, "http://"+r.address+"/metrics"), `walhook_alerts{alert="consecutive_failures"} 0`)
}
