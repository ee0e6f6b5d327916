package admin

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// tokenPrefix is what every token begins with, so that scanners recognise one that was published by mistake.
	tokenPrefix = "whk_"
	tokenBytes  = 32
	// hintLength is how many characters of a token are kept: the prefix and 24 of its 256 random bits.
	hintLength = 8
	// maxToken is the most bytes that are looked at as a token.
	maxToken = 512
	// maxExpiry is how far ahead a token may expire.
	maxExpiry = 100 * 365 * 24 * time.Hour
)

// errUnknownToken is one and the same for all reasons: a guesser learns nothing from it.
func errUnknownToken() error {
	return &Error{Kind: Unauthenticated, Message: "the token is unknown, expired or revoked: make one with 'walhook token create --name NAME' " +
		"and send it as 'Authorization: Bearer whk_…'"}
}

const selectToken = `SELECT id, name, hint, scopes, tenant, created_at, expires_at, last_used_at, revoked_at FROM outbox.api_tokens `

func scanToken(row pgx.CollectableRow) (t Token, err error) {
	var scopes []string
	err = row.Scan(&t.ID, &t.Name, &t.Hint, &scopes, &t.Tenant, &t.CreatedAt, &t.ExpiresAt, &t.LastUsedAt, &t.RevokedAt)
	t.Scopes = scopesOf(scopes)
	return t, err
}

func scopesOf(names []string) []Scope {
	scopes := make([]Scope, len(names))
	for i, name := range names {
		scopes[i] = Scope(name)
	}
	return scopes
}

// Authenticate finds whose token it is. An unknown, expired or revoked one is Unauthenticated, without saying which; an
// error without a Kind means that the database could not be asked.
func (s *Store) Authenticate(ctx context.Context, token string) (*Principal, error) {
	if token == "" || len(token) > maxToken {
		return nil, errUnknownToken()
	}
	hash, configured := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(s.Token))
	if same := subtle.ConstantTimeCompare(hash[:], configured[:]) == 1; same && s.Token != "" {
		return &Principal{Name: "configuration", Scopes: slices.Clone(Scopes)}, nil
	}
	var (
		p      Principal
		stored []byte
		scopes []string
		unused bool
	)
	err := s.db.QueryRow(ctx, `
SELECT id, name, hash, scopes, tenant, coalesce(last_used_at < now() - interval '1 minute', true)
FROM outbox.api_tokens
WHERE hash = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())`, hash[:]).
		Scan(&p.TokenID, &p.Name, &stored, &scopes, &p.Tenant, &unused)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && subtle.ConstantTimeCompare(hash[:], stored) != 1 {
		return nil, errUnknownToken()
	}
	if err != nil {
		return nil, fmt.Errorf("look the token up: %w", err)
	}
	p.Scopes = scopesOf(scopes)
	if unused {
		s.touchToken(ctx, p.TokenID)
	}
	return &p, nil
}

// touchToken notes that a token is used, once a minute. Where that cannot be written (a standby, a role that may only
// read) the token is as good as before, so the error is dropped. Nobody waits for another's lock here.
func (s *Store) touchToken(ctx context.Context, id uuid.UUID) {
	_, _ = s.db.Exec(ctx, `
UPDATE outbox.api_tokens SET last_used_at = now() WHERE id IN (
  SELECT id FROM outbox.api_tokens
  WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute') FOR UPDATE SKIP LOCKED)`, id)
}

// HasToken reports whether anybody can authenticate: there is a token in the configuration or a valid one in the database.
func (s *Store) HasToken(ctx context.Context) (has bool, err error) {
	if s.Token != "" {
		return true, nil
	}
	err = s.db.QueryRow(ctx, `
SELECT EXISTS (SELECT FROM outbox.api_tokens WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now()))`).Scan(&has)
	if err != nil {
		return false, fmt.Errorf("look for tokens: %w", err)
	}
	return has, nil
}

// CreateToken makes a token and returns it, this once: the database has only its hash. A name that a valid token has
// already is Invalid, as are unknown scopes and an expiry before now or in more than 100 years.
func (s *Store) CreateToken(ctx context.Context, n NewToken) (Token, string, error) {
	scopes, err := n.check()
	if err != nil {
		return Token{}, "", err
	}
	var random [tokenBytes]byte
	_, _ = rand.Read(random[:]) // never fails
	text := tokenPrefix + base64.RawURLEncoding.EncodeToString(random[:])
	hash := sha256.Sum256([]byte(text))
	rows, err := s.db.Query(ctx, `
INSERT INTO outbox.api_tokens (name, hash, hint, scopes, tenant, expires_at)
VALUES ($1::text, $2::bytea, $3::text, $4::text[], $5::text, CASE WHEN $6::float8 > 0 THEN now() + make_interval(secs => $6::float8) END)
RETURNING id, name, hint, scopes, tenant, created_at, expires_at, last_used_at, revoked_at`,
		n.Name, hash[:], text[:hintLength], scopes, n.Tenant, n.ExpiresIn.Seconds())
	if err != nil {
		return Token{}, "", fmt.Errorf("create token: %w", err)
	}
	token, err := pgx.CollectExactlyOneRow(rows, scanToken)
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.ConstraintName == "api_tokens_name" {
		return Token{}, "", invalid("name", "there is a token %q already: revoke it first, or choose another name", n.Name)
	}
	if err != nil {
		return Token{}, "", fmt.Errorf("create token: %w", err)
	}
	return token, text, nil
}

// check says what is wrong with it, or returns its scopes in their usual order and each once.
func (n NewToken) check() (scopes []string, err error) {
	if err := checkTokenName(n.Name); err != nil {
		return nil, err
	}
	for _, s := range n.Scopes {
		if !slices.Contains(Scopes, s) {
			return nil, invalid("scopes", "there is no scope %.60q: use read, manage or publish", s)
		}
	}
	for _, s := range Scopes {
		if slices.Contains(n.Scopes, s) {
			scopes = append(scopes, string(s))
		}
	}
	if len(scopes) == 0 {
		return nil, invalid("scopes", "no scope is given: use read, manage or publish, or several of them")
	}
	if n.Tenant != nil && (len(*n.Tenant) > 255 || !storable(*n.Tenant)) {
		return nil, invalid("tenant", "%.60q is no tenant: it has at most 255 bytes of UTF-8 without NUL", *n.Tenant)
	}
	if n.ExpiresIn < 0 || n.ExpiresIn > maxExpiry {
		return nil, invalid("expires_in", "%s is out of range: a token expires within 100 years, or with 0 never", n.ExpiresIn)
	}
	return scopes, nil
}

// checkTokenName holds a name to what tells tokens apart in a list.
func checkTokenName(name string) error {
	switch {
	case name == "":
		return invalid("name", "the name is empty: say what the token is for")
	case utf8.RuneCountInString(name) > 255 || !storable(name) || strings.ContainsFunc(name, unicode.IsControl):
		return invalid("name", "%.60q is no name: it has 1 to 255 characters and none that control a terminal", name)
	case strings.HasPrefix(name, tokenPrefix):
		// The name is shown wherever tokens are listed.
		return invalid("name", "the name begins with %s as tokens do: a name says what the token is for", tokenPrefix)
	}
	return nil
}

// storable reports whether Postgres can hold a text.
func storable(text string) bool { return utf8.ValidString(text) && !strings.Contains(text, "\x00") }

// Tokens lists all tokens, revoked ones as well, the newest first.
func (s *Store) Tokens(ctx context.Context) ([]Token, error) {
	rows, err := s.db.Query(ctx, selectToken+`ORDER BY created_at DESC, id DESC`)
	if err != nil {
		return nil, fmt.Errorf("list tokens: %w", err)
	}
	tokens, err := pgx.CollectRows(rows, scanToken)
	if err != nil {
		return nil, fmt.Errorf("list tokens: %w", err)
	}
	return tokens, nil
}

// RevokeToken ends a token, by id or name, at once. One that was revoked before stays as it was, and is returned: what is
// asked for holds. Of several with the name the valid one is meant.
func (s *Store) RevokeToken(ctx context.Context, idOrName string) (Token, error) {
	if strings.HasPrefix(idOrName, tokenPrefix) || !storable(idOrName) {
		return Token{}, notFound("there is no token of that name or id, and a token is not revoked by its text: 'walhook token list' lists them")
	}
	const chosen = `(SELECT id FROM outbox.api_tokens WHERE id::text = lower($1::text) OR name = $1::text
  ORDER BY id::text = lower($1::text) DESC, revoked_at IS NULL DESC, created_at DESC, id DESC LIMIT 1)`
	if _, err := s.db.Exec(ctx, `UPDATE outbox.api_tokens SET revoked_at = now() WHERE revoked_at IS NULL AND id = `+chosen, idOrName); err != nil {
		return Token{}, fmt.Errorf("revoke token: %w", err)
	}
	rows, err := s.db.Query(ctx, selectToken+`WHERE id = `+chosen, idOrName)
	if err != nil {
		return Token{}, fmt.Errorf("revoke token: %w", err)
	}
	token, err := pgx.CollectExactlyOneRow(rows, scanToken)
	if errors.Is(err, pgx.ErrNoRows) {
		return Token{}, notFound("there is no token %.60q: 'walhook token list' lists them", idOrName)
	}
	if err != nil {
		return Token{}, fmt.Errorf("revoke token: %w", err)
	}
	return token, nil
}
