package main

import (
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/secret"
	"github.com/walhook/walhook/test/harness"
)

// Whoever changes a secret while it is encrypted wins: what is stored in the end is the newest secret, encrypted.
func TestReencryptionYieldsToOthers(t *testing.T) {
	t.Parallel()
	conn, err := pgx.Connect(t.Context(), harness.Database(t))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close(t.Context())) })
	keyset, err := secret.NewKeyset()
	require.NoError(t, err)
	r := reencryption{conn: conn, resolver: secret.NewResolver(secret.Options{Keyset: keyset}), plain: true}
	id := uuid.New()
	_, err = conn.Exec(t.Context(), "INSERT INTO outbox.subscriptions (id, name, url, secret) VALUES ($1, 'n', 'http://localhost/', 'the newest')", id)
	require.NoError(t, err)

	stale := "as it was read"
	changed, err := r.row(t.Context(), secretRow{ID: id, Secret: &stale})
	require.NoError(t, err)
	require.True(t, changed)
	var stored string
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT secret FROM outbox.subscriptions").Scan(&stored))
	got, err := r.resolver.Resolve(stored, id)
	require.NoError(t, err)
	require.Equal(t, "the newest", got.Reveal())

	changed, err = r.row(t.Context(), secretRow{ID: uuid.New(), Secret: &stale})
	require.NoError(t, err)
	require.False(t, changed, "it was removed meanwhile")
}

// What the relay has found out about a subscription stands: neither must its receiver agree again, nor is it forgotten
// why it was deactivated.
func TestReencryptionKeepsWhatWasFoundOut(t *testing.T) {
	t.Parallel()
	conn, err := pgx.Connect(t.Context(), harness.Database(t))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close(t.Context())) })
	keyset, err := secret.NewKeyset()
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), `INSERT INTO outbox.subscriptions (name, url, secret, verification) VALUES ('n', 'http://localhost/', 's', 'slack')`)
	require.NoError(t, err)
	const found = "verified_at = '2026-01-02', verification_error = 'e', allowed_rate = 7, status_reason = 'deactivated: 410 Gone'"
	_, err = conn.Exec(t.Context(), "UPDATE outbox.subscriptions SET "+found)
	require.NoError(t, err)
	r := reencryption{conn: conn, resolver: secret.NewResolver(secret.Options{Keyset: keyset}), plain: true}
	require.NoError(t, r.all(t.Context(), &app{}))
	require.Equal(t, reencrypted{Encrypted: 1}, r.done)
	var kept bool
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT secret LIKE 'enc:%' AND status = 'valid' AND "+strings.ReplaceAll(found, ", ", " AND ")+
		" FROM outbox.subscriptions").Scan(&kept))
	require.True(t, kept)
}

// More rows than a page has, each once.
func TestReencryptionGoesThroughAllPages(t *testing.T) {
	t.Parallel()
	conn, err := pgx.Connect(t.Context(), harness.Database(t))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close(t.Context())) })
	keyset, err := secret.NewKeyset()
	require.NoError(t, err)
	const n = 2*reencryptPage + 3
	_, err = conn.Exec(t.Context(), "INSERT INTO outbox.subscriptions (name, url, secret) SELECT 'n', 'http://localhost/', 's' || g FROM generate_series(1, $1::int) g", n)
	require.NoError(t, err)
	r := reencryption{conn: conn, resolver: secret.NewResolver(secret.Options{Keyset: keyset}), plain: true}
	require.NoError(t, r.all(t.Context(), &app{}))
	require.Equal(t, reencrypted{Encrypted: n}, r.done)
	var left int
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT count(*) FROM outbox.subscriptions WHERE secret NOT LIKE 'enc:%'").Scan(&left))
	require.Zero(t, left)
}
