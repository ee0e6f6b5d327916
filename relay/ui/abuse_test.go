package ui

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/admin"
)

// Who may publish and not read gets the form back, and nothing of what others have published.
func TestAFormThatIsRefusedShowsNoEventsToWhoMayNotRead(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	_, err := s.db.Exec(t.Context(), `SELECT outbox.publish('patient.created', '{"name": "c4n4ry"}', key => 'c4n4ry-key')`)
	require.NoError(t, err)
	w := s.ask(s.token(nil, admin.ScopePublish), "POST", "/events", url.Values{"type": {"not a type"}})
	require.Equal(t, http.StatusUnprocessableEntity, w.Code)
	require.Contains(t, w.Body.String(), `value="not a type"`)
	require.NotContains(t, w.Body.String(), "c4n4ry")
	w = s.ask(s.token(nil, admin.ScopePublish, admin.ScopeRead), "POST", "/events", url.Values{"type": {"not a type"}})
	require.Equal(t, http.StatusUnprocessableEntity, w.Code)
	require.Contains(t, w.Body.String(), "c4n4ry")
}

// What strangers send is bounded by what a login needs, or a few hundred of them would take a gigabyte.
func TestALoginFormIsSmall(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	large := url.Values{"token": {"x"}, "next": {strings.Repeat("/", 32<<10)}}
	require.Equal(t, http.StatusRequestEntityTooLarge, s.ask("", "POST", "/login", large).Code)
	token := s.token(nil, admin.ScopeRead)
	fits := url.Values{"token": {token}, "next": {"/events?key=" + strings.Repeat("%20", 600)}}
	require.Equal(t, http.StatusSeeOther, s.ask("", "POST", "/login", fits).Code)
}

// A link to the login with a token in it logs in by itself only where no other site can have made somebody follow it: else
// that one would work under a stranger's token without knowing.
func TestALoginByLinkFromElsewhereWaits(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for site, alone := range map[string]bool{"none": true, "same-origin": true, "cross-site": false, "same-site": false, "": false} {
		w := s.ask("", "GET", "/login", nil, "Sec-Fetch-Site", site)
		require.Equal(t, http.StatusOK, w.Code)
		want := "data-login>"
		if alone {
			want = `data-login="alone">`
		}
		require.Contains(t, w.Body.String(), want, site)
	}
}
