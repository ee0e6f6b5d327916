package acceptance_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// refusal is the error of the only attempt that was made.
func (db *database) refusal() string {
	db.t.Helper()
	db.publish(1)
	harness.Eventually(db.t, soon, "an attempt is recorded", func() bool {
		return ask[int](db, "SELECT count(*)::int FROM outbox.attempts") == 1
	})
	return ask[string](db, "SELECT error FROM outbox.attempts")
}

func TestRefusedAddressGetsNothing(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	receiver := harness.NewCollector(t)
	db.subscribe(receiver.URL(), "max_retries", "0")
	r := db.start("--delivery-allow-loopback", "never")
	require.NotContains(t, r.Stderr(), "delivery.allow_loopback")
	require.Equal(t, "address 127.0.0.1 is refused (loopback, RFC 1122): set delivery.allow_loopback to always to allow it", db.refusal())
	require.Empty(t, receiver.Requests())
	_, metrics := r.get("/metrics")
	require.Contains(t, metrics, `walhook_failures_total{reason="address"} 1`)
}

// The database of these tests is on this machine, so that its loopback is allowed unless told otherwise.
func TestRelayItselfIsNoReceiver(t *testing.T) {
	t.Parallel()
	db := newDatabase(t)
	r := db.start("--delivery-allow-networks", "0.0.0.0/0,::/0", "--delivery-allow-ports", "1-65535", "--delivery-allow-http")
	require.Contains(t, r.Stderr(), `"setting":"delivery.allow_loopback"`)
	db.subscribe(r.url+"/metrics", "max_retries", "0")
	host, _, _ := strings.Cut(strings.TrimPrefix(r.url, "http://"), ":")
	require.Equal(t, "address "+host+" is refused (the relay's own or its database's): no setting allows it", db.refusal())
}
