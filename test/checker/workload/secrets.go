package workload

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// schemes are those that sign requests; unsigned is the one that does not.
var schemes = []string{"sha256", "sha256", "sha256", "github", "stripe", "standard", "shopify", "slack"}

const (
	unsigned = "none"
	standard = "standard" // its secrets are base64 behind a prefix, which no other scheme minds
)

// secret makes a secret for a scheme and remembers it.
func (w *Workload) secret(random *rand.Rand, scheme string) string {
	secret := fmt.Sprintf("canary-%016x%016x", random.Uint64(), random.Uint64())
	if scheme == standard {
		secret = fmt.Sprintf("whsec_canary%016x%010x", random.Uint64(), random.Uint64()>>24)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.secrets = append(w.secrets, secret)
	return secret
}

// rotate gives a subscription a new secret, and sometimes another scheme. The old secret still signs for some seconds,
// or for ever, or has been worth nothing for some time; one that is no key for the new scheme goes at once.
func (c *changer) rotate(target subscription) change {
	scheme := target.Scheme
	if scheme == unsigned || chance(c.random, 20) {
		scheme = pick(c.random, schemes...)
	}
	expires := pick(c.random, "now() + interval '1 s'", "now() + interval '2 s'", "now() + interval '4 s'", "now() + interval '1 minute'", "now() - interval '10 s'", "NULL")
	return set(target.ID, "previous_secret = CASE WHEN $3 <> 'standard' OR signature = 'standard' THEN secret END, previous_secret_expires_at = "+
		expires+", secret = $2, signature = $3", c.secret(c.random, scheme), scheme)
}

// Rotate gives every subscription that has a secret another one. The old one still signs for a time.
func (w *Workload) Rotate(ctx context.Context, overlap time.Duration) error {
	s := session{url: w.o.URL}
	if err := s.open(ctx); err != nil {
		return err
	}
	defer s.close()
	rows, _ := s.conn.Query(ctx, "SELECT id, signature FROM outbox.subscriptions WHERE secret IS NOT NULL ORDER BY id")
	type signed struct {
		ID     uuid.UUID
		Scheme string
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[signed])
	if err != nil {
		return fmt.Errorf("read the subscriptions: %w", err)
	}
	random := w.stream(bulkStream + uint64(w.numbers.Add(1)))
	for _, one := range all { // each by itself: they may be locked in any order elsewhere, or be gone
		_, err := s.conn.Exec(ctx, "SELECT outbox.rotate_secret(id, $2, $3) FROM outbox.subscriptions WHERE id = $1 AND (signature = 'standard') = $4",
			one.ID, w.secret(random, one.Scheme), overlap, one.Scheme == standard)
		if err != nil && !s.explained(err) {
			return fmt.Errorf("rotate the secret of %s: %w", one.ID, err)
		}
	}
	return nil
}
