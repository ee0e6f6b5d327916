package vendors_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"
)

// event is what the CloudEvents SDK makes of a request.
type event struct {
	SpecVersion, ID, Source, Type, Subject, Time string
	Data                                         struct{ Event struct{ Text string } }
}

func events(t *testing.T, r request) (list []event) {
	t.Helper()
	require.Equal(t, http.StatusOK, r.Status, r.Error)
	require.NoError(t, json.Unmarshal(r.Understood, &list))
	return list
}

// Texts that neither a URI nor a header can hold as they are.
const (
	oddSource  = `/kliniken/Größe "7" 100% ✓`
	oddSubject = `Müller, "Jürgen" 50%`
)

// testCloudEvents: the SDK reads the same event out of all modes.
func testCloudEvents(t *testing.T, db database, r receivers) {
	for _, mode := range []struct {
		name, format, contentType string
		batch                     int
		broken                    func(*testing.T, request) request
	}{
		{"structured", "cloudevents", "application/cloudevents+json", 1, withoutVersion},
		{"binary", "cloudevents-binary", "application/json", 1, func(_ *testing.T, r request) request {
			delete(r.Headers, "ce-id")
			return r
		}},
		{"batch", "cloudevents", "application/cloudevents-batch+json", 3, withoutVersion},
	} {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			eventType := "cloudevents." + mode.name
			address := r.receiver(t, eventType, set{Verifier: "cloudevents"})
			db.subscribe(t, address, eventType, columns{"payload_format": mode.format, "batch_size": mode.batch, "batch_wait": soon})
			for range mode.batch {
				_, err := db.Exec(t.Context(), "SELECT outbox.publish($1, $2, source => $3, key => $4)", eventType, payload(""), oddSource, oddSubject)
				require.NoError(t, err)
			}
			got := answered(t, address, 1)[0]
			require.Equal(t, mode.contentType, got.Headers["content-type"])
			require.Contains(t, string(got.Body), digits)
			list := events(t, got)
			require.Len(t, list, mode.batch)
			for _, e := range list {
				requireOdd(t, e, eventType, mode.name == "binary")
			}
			require.Equal(t, http.StatusUnauthorized, mode.broken(t, got).again(t, address))
		})
	}
}

func withoutVersion(t *testing.T, r request) request {
	t.Helper()
	return r.altered(t, `"specversion"`, `"specversioM"`)
}

// requireOdd checks what arrived. In headers values are percent-encoded (HTTP binding 1.0.2, section 3.1.3.2), and
// the SDK for JavaScript leaves that to its user.
func requireOdd(t *testing.T, e event, eventType string, encoded bool) {
	t.Helper()
	if encoded {
		for _, attribute := range []*string{&e.Source, &e.Subject} {
			decoded, err := url.PathUnescape(*attribute)
			require.NoError(t, err)
			*attribute = decoded
		}
	}
	require.Equal(t, "1.0", e.SpecVersion)
	require.NotEmpty(t, e.ID)
	require.NotEmpty(t, e.Time)
	require.Equal(t, eventType, e.Type)
	require.Equal(t, oddSubject, e.Subject)
	source, err := url.PathUnescape(e.Source) // a URI-reference, in which the rest is percent-encoded
	require.NoError(t, err)
	require.Equal(t, oddSource, source)
	require.Equal(t, umlauts, e.Data.Event.Text)
}
