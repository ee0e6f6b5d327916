package vendors_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// testHandshakes: nothing is delivered before the receiver has agreed. It takes its time to.
func testHandshakes(t *testing.T, db database, r receivers) {
	for _, handshake := range []struct {
		name, verifier, method, body string
		subscription                 columns
		allowedRate                  int
	}{
		{"cloudevents", "cloudevents", http.MethodOptions, "", columns{"payload_format": "cloudevents"}, 1200},
		{"slack", "@slack/bolt", http.MethodPost, `"type":"url_verification"`,
			columns{"payload_format": "raw", "signature": "slack", "secret": "signing secret"}, 0},
	} {
		t.Run(handshake.name, func(t *testing.T) {
			t.Parallel()
			eventType := "handshake." + handshake.name
			url := r.receiver(t, eventType, set{Verifier: handshake.verifier, Secret: "signing secret", Holds: true})
			handshake.subscription["verification"] = handshake.name
			id := db.subscribe(t, url, eventType, handshake.subscription)
			db.publish(t, eventType, payload(""))
			harness.Eventually(t, soon, "the delivery is held", func() bool {
				var held bool
				require.NoError(t, db.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM outbox.queue
					WHERE subscription_id = $1 AND state = 'inactive' AND attempts = 0)`, id).Scan(&held))
				return held
			})
			asked := arrived(t, url, 1)
			require.Len(t, asked, 1)
			require.Equal(t, handshake.method, asked[0].Method)
			require.Contains(t, string(asked[0].Body), handshake.body)

			r.receiver(t, eventType, set{Holds: false})
			got := answered(t, url, 2)
			require.Equal(t, []int{200, 200}, statuses(got))
			require.Equal(t, http.MethodPost, got[1].Method)
			require.Contains(t, string(got[1].Body), digits)
			require.Contains(t, string(got[1].Understood), umlauts)
			var verified bool
			var allowedRate int
			require.NoError(t, db.QueryRow(t.Context(), `SELECT verified_at IS NOT NULL AND verification_error IS NULL, allowed_rate
				FROM outbox.subscriptions WHERE id = $1`, id).Scan(&verified, &allowedRate))
			require.True(t, verified)
			require.Equal(t, handshake.allowedRate, allowedRate)
		})
	}
}
