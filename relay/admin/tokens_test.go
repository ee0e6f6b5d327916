package admin_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/admin"
)

func (o office) token(t testing.TB, n admin.NewToken) (admin.Token, string) {
	t.Helper()
	made, text, err := o.store.CreateToken(t.Context(), n)
	require.NoError(t, err)
	return made, text
}

// hides requires that neither a token's text nor its hash is in what is shown.
func hides(t testing.TB, text string, shown any) {
	t.Helper()
	var all string
	switch s := shown.(type) {
	case error:
		all = fmt.Sprintf("%s %+v", s, s)
	default:
		encoded, err := json.Marshal(s)
		require.NoError(t, err)
		all = fmt.Sprintf("%s %+v", encoded, s)
	}
	hash := sha256.Sum256([]byte(text))
	for _, secret := range []string{text, text[8:], hex.EncodeToString(hash[:]), base64.StdEncoding.EncodeToString(hash[:]), fmt.Sprintf("%v", hash)} {
		require.NotContains(t, all, secret)
	}
}

func TestATokenAuthenticates(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	made, text := o.token(t, admin.NewToken{Name: "ci", Scopes: []admin.Scope{"publish", "read", "read"}, Tenant: ptr("a"), ExpiresIn: time.Hour})
	require.Regexp(t, `^whk_[A-Za-z0-9_-]{43}$`, text)
	require.Equal(t, text[:8], made.Hint)
	require.Equal(t, []admin.Scope{admin.ScopeRead, admin.ScopePublish}, made.Scopes)
	require.WithinDuration(t, made.CreatedAt.Add(time.Hour), *made.ExpiresAt, time.Second)
	require.Nil(t, made.LastUsedAt)
	hides(t, text, made)

	p, err := o.store.Authenticate(t.Context(), text)
	require.NoError(t, err)
	require.Equal(t, &admin.Principal{TokenID: made.ID, Name: "ci", Scopes: made.Scopes, Tenant: ptr("a")}, p)
	require.False(t, p.Everywhere())
	require.False(t, p.May(admin.ScopeManage))
	hides(t, text, p)

	tokens, err := o.store.Tokens(t.Context())
	require.NoError(t, err)
	require.Len(t, tokens, 1)
	require.NotNil(t, tokens[0].LastUsedAt)
	hides(t, text, tokens)
	require.NotContains(t, o.text(t, "SELECT string_agg(t::text, ' ') FROM outbox.api_tokens t"), text[4:])
}

// Its last use is written once a minute, and where it cannot be written the token is as good.
func TestTheLastUseIsNotedNowAndThen(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	_, text := o.token(t, admin.NewToken{Name: "x", Scopes: admin.Scopes})
	used := func() string {
		t.Helper()
		_, err := o.store.Authenticate(t.Context(), text)
		require.NoError(t, err)
		return o.text(t, "SELECT xmin::text || last_used_at::text FROM outbox.api_tokens")
	}
	first := used()
	require.Equal(t, first, used(), "the same minute")
	o.exec(t, "UPDATE outbox.api_tokens SET last_used_at = now() - interval '61 seconds'")
	require.NotEqual(t, first, used())

	o.exec(t, "UPDATE outbox.api_tokens SET last_used_at = NULL")
	o.exec(t, "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database()); END $$")
	conn, err := pgx.ConnectConfig(t.Context(), o.Config().ConnConfig)
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	_, err = conn.Exec(t.Context(), "CREATE TABLE outbox.x ()")
	require.Error(t, err, "it is read-only")
	_, err = admin.New(conn, admin.Options{}).Authenticate(t.Context(), text)
	require.NoError(t, err)
}

// Unknown, expired and revoked tokens are refused in the same words, and without showing them.
func TestTokensThatAreNotValid(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	_, revoked := o.token(t, admin.NewToken{Name: "revoked", Scopes: admin.Scopes})
	_, err := o.store.RevokeToken(t.Context(), "revoked")
	require.NoError(t, err)
	_, expired := o.token(t, admin.NewToken{Name: "expired", Scopes: admin.Scopes, ExpiresIn: time.Hour})
	o.exec(t, "UPDATE outbox.api_tokens SET expires_at = now() WHERE name = 'expired'")
	_, good := o.token(t, admin.NewToken{Name: "good", Scopes: admin.Scopes})
	messages := map[string]bool{}
	for _, text := range []string{"", "x", revoked, expired, strings.ToUpper(good), good + "A", good[:46], "Bearer " + good, " " + good,
		strings.Repeat("x", 513), strings.Repeat("x", 10<<20), "\x00", "\xff", "whk_" + strings.Repeat("A", 43)} {
		p, err := o.store.Authenticate(t.Context(), text)
		require.Nil(t, p)
		messages[requireError(t, err, admin.Unauthenticated, "").Message] = true
		if len(text) > 8 {
			hides(t, text, err)
		}
	}
	require.Len(t, messages, 1)
	_, err = o.store.Authenticate(t.Context(), good)
	require.NoError(t, err)
}

func TestTheTokenOfTheConfiguration(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	has, err := o.store.HasToken(t.Context())
	require.NoError(t, err)
	require.False(t, has)
	with := admin.New(broken{}, admin.Options{Token: "from the configuration"})
	has, err = with.HasToken(t.Context())
	require.NoError(t, err)
	require.True(t, has)
	p, err := with.Authenticate(t.Context(), "from the configuration")
	require.NoError(t, err, "the database is not needed")
	require.True(t, p.Everywhere())
	require.Equal(t, admin.Scopes, p.Scopes)
	require.Zero(t, p.TokenID)

	_, err = with.Authenticate(t.Context(), "another")
	require.ErrorIs(t, err, errBroken)
	var e *admin.Error
	require.False(t, errors.As(err, &e), "a database that is down is not the caller's fault")
	_, err = admin.New(o.Pool, admin.Options{}).Authenticate(t.Context(), "")
	requireError(t, err, admin.Unauthenticated, "")

	_, _ = o.token(t, admin.NewToken{Name: "x", Scopes: admin.Scopes, ExpiresIn: time.Minute})
	has, err = o.store.HasToken(t.Context())
	require.NoError(t, err)
	require.True(t, has)
	o.exec(t, "UPDATE outbox.api_tokens SET expires_at = now()")
	has, err = o.store.HasToken(t.Context())
	require.NoError(t, err)
	require.False(t, has)
}

var errBroken = errors.New("the database is down")

// broken is a database that is down.
type broken struct{}

func (broken) Exec(context.Context, string, ...any) (pgconn.CommandTag, error) {
	return pgconn.CommandTag{}, errBroken
}
func (broken) Query(context.Context, string, ...any) (pgx.Rows, error) { return nil, errBroken }
func (broken) QueryRow(context.Context, string, ...any) pgx.Row        { return broken{} }
func (broken) Begin(context.Context) (pgx.Tx, error)                   { return nil, errBroken }
func (broken) Scan(...any) error                                       { return errBroken }

func TestTokensAreRefused(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	_, text := o.token(t, admin.NewToken{Name: "taken", Scopes: admin.Scopes})
	for _, c := range []struct {
		field string
		token admin.NewToken
	}{
		{"name", admin.NewToken{Scopes: admin.Scopes}},
		{"name", admin.NewToken{Name: "taken", Scopes: admin.Scopes}},
		{"name", admin.NewToken{Name: strings.Repeat("ä", 256), Scopes: admin.Scopes}},
		{"name", admin.NewToken{Name: "a\x00b", Scopes: admin.Scopes}},
		{"name", admin.NewToken{Name: "\x1b[2J", Scopes: admin.Scopes}},
		{"name", admin.NewToken{Name: text, Scopes: admin.Scopes}},
		{"scopes", admin.NewToken{Name: "x"}},
		{"scopes", admin.NewToken{Name: "x", Scopes: []admin.Scope{"read", "admin"}}},
		{"tenant", admin.NewToken{Name: "x", Scopes: admin.Scopes, Tenant: ptr(strings.Repeat("x", 256))}},
		{"tenant", admin.NewToken{Name: "x", Scopes: admin.Scopes, Tenant: ptr("\xff")}},
		{"expires_in", admin.NewToken{Name: "x", Scopes: admin.Scopes, ExpiresIn: -1}},
		{"expires_in", admin.NewToken{Name: "x", Scopes: admin.Scopes, ExpiresIn: 1<<63 - 1}},
	} {
		_, made, err := o.store.CreateToken(t.Context(), c.token)
		require.Empty(t, made)
		requireError(t, err, admin.Invalid, c.field)
		hides(t, text, err)
	}
	_, _ = o.token(t, admin.NewToken{Name: strings.Repeat("ä", 255), Scopes: []admin.Scope{"read"}, Tenant: ptr("")})
}

func TestTokensAreRevoked(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	first, text := o.token(t, admin.NewToken{Name: "x", Scopes: admin.Scopes})
	revoked, err := o.store.RevokeToken(t.Context(), strings.ToUpper(first.ID.String()))
	require.NoError(t, err)
	require.Equal(t, first.ID, revoked.ID)
	require.NotNil(t, revoked.RevokedAt)
	again, err := o.store.RevokeToken(t.Context(), "x")
	require.NoError(t, err)
	require.Equal(t, revoked, again, "revoked once is revoked")

	second, other := o.token(t, admin.NewToken{Name: "x", Scopes: admin.Scopes}) // the name is free again
	_, err = o.store.Authenticate(t.Context(), text)
	requireError(t, err, admin.Unauthenticated, "")
	_, err = o.store.Authenticate(t.Context(), other)
	require.NoError(t, err)
	revoked, err = o.store.RevokeToken(t.Context(), "x")
	require.NoError(t, err)
	require.Equal(t, second.ID, revoked.ID, "the valid one of the name")

	for _, unknown := range []string{"", "y", first.ID.String()[:8], "\xff", "\x00", "00000000-0000-0000-0000-000000000000", text} {
		_, err = o.store.RevokeToken(t.Context(), unknown)
		requireError(t, err, admin.NotFound, "")
		hides(t, text, err)
	}
	tokens, err := o.store.Tokens(t.Context())
	require.NoError(t, err)
	require.Equal(t, second.ID, tokens[0].ID, "the newest first")
	require.Len(t, tokens, 2)
}

// FuzzToken: nothing but a token's own text is let in.
func FuzzToken(f *testing.F) {
	o := newOffice(f)
	_, good := o.token(f, admin.NewToken{Name: "good", Scopes: admin.Scopes})
	f.Add("")
	f.Add(good + "x")
	f.Add("whk_\x00")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := o.store.Authenticate(t.Context(), text)
		if text == good {
			require.NoError(t, err)
			return
		}
		require.Nil(t, p)
		requireError(t, err, admin.Unauthenticated, "")
	})
}
