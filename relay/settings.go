package relay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/webhook"
)

// settingsQuery names every column, for what scanSettings says of one that it cannot read.
const settingsQuery = `SELECT id, revision, name, url, headers, coalesce(secret, '') AS secret, coalesce(previous_secret, '') AS previous_secret,
	previous_secret_expires_at, signature, payload_format, payload_version, max_retries, extract(epoch FROM retry_delay)::float8 AS retry_delay,
	extract(epoch FROM timeout)::float8 AS timeout, ordering, max_in_flight, coalesce(rate_limit, 0) AS rate_limit,
	batch_size, extract(epoch FROM batch_wait)::float8 AS batch_wait, tenant, verification, verified_at IS NULL AND verification <> 'none' AS verified_at,
	coalesce(allowed_rate, 0) AS allowed_rate, is_active,
	CASE WHEN status = 'invalid' THEN coalesce(status_reason, 'invalid') ELSE '' END AS status
	FROM outbox.subscriptions`

// loaded is the settings of one subscription, and what the relay found wrong with them now.
type loaded struct {
	*delivery.Settings
	news   bool // Invalid is the relay's own finding, which the row does not have yet
	mended bool // the row has a finding that is no longer true
}

// loadSettings reads how deliveries are sent: of the named subscriptions, or of all when ids is nil. Settings
// that cannot be read or used are Invalid: one row must not stop everybody else's deliveries.
func (o *ownership) loadSettings(ctx context.Context, conn *pgx.Conn, ids []uuid.UUID) ([]loaded, error) {
	query, args := settingsQuery, []any(nil)
	if ids != nil {
		query, args = query+" WHERE id = ANY($1)", []any{ids}
	}
	rows, err := conn.Query(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read subscriptions: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (loaded, error) {
		s, err := scanSettings(conn.TypeMap(), row)
		return examine(s, errors.Join(err, o.resolve(s))), nil
	})
	if err != nil {
		return nil, fmt.Errorf("read subscriptions: %w", err)
	}
	return all, nil
}

// resolve replaces stored secrets by what they stand for.
func (o *ownership) resolve(s *delivery.Settings) error {
	if o.options.Secrets == nil {
		return nil
	}
	if expires := s.PreviousSecretExpiresAt; !expires.IsZero() && !expires.After(time.Now()) {
		s.PreviousSecret = "" // what it refers to may be gone by now
	}
	var errs []error
	for _, at := range []*delivery.Secret{&s.Secret, &s.PreviousSecret} {
		if *at == "" {
			continue
		}
		resolved, err := o.options.Secrets.Resolve(at.Reveal(), s.SubscriptionID)
		*at = resolved
		if err != nil {
			errs = append(errs, fmt.Errorf(secretTrouble+"%w", err))
		}
	}
	return errors.Join(errs...)
}

// secretTrouble begins the reasons that may go away without a change of the row: a variable is set, a file is there.
const secretTrouble = "secret cannot be used: "

// examine marks settings that could not be scanned, or that make no request, as invalid.
func examine(s *delivery.Settings, err error) loaded {
	known := s.Invalid
	if known != "" && !strings.HasPrefix(known, secretTrouble) { // the row says so already, and only its change mends it
		return loaded{Settings: s}
	}
	if err == nil {
		err = webhook.Check(s)
	}
	s.Invalid = ""
	if err != nil {
		s.Invalid = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	return loaded{Settings: s, news: s.Invalid != known && s.Invalid != "", mended: s.Invalid == "" && known != ""}
}

// scanSettings reads what it can of a row.
func scanSettings(types *pgtype.Map, row pgx.CollectableRow) (*delivery.Settings, error) {
	var s delivery.Settings
	var headers []byte
	var secret, previous string
	var expires pgtype.Timestamptz
	var delay, timeout, batchWait float64
	err := scanEach(types, row, &s.SubscriptionID, &s.Revision, &s.Name, &s.URL, &headers, &secret, &previous, &expires,
		&s.Signature, &s.PayloadFormat, &s.PayloadVersion, &s.MaxRetries, &delay, &timeout, &s.Ordering, &s.MaxInFlight, &s.RateLimit,
		&s.BatchSize, &batchWait, &s.Tenant, &s.Verification, &s.Unverified, &s.AllowedPerMinute, &s.Active, &s.Invalid)
	if err != nil {
		return &s, err
	}
	s.Secret, s.PreviousSecret = delivery.Secret(secret), delivery.Secret(previous)
	s.PreviousSecretExpiresAt = expiry(expires)
	s.RetryDelay = time.Duration(delay * float64(time.Second))
	s.Timeout = time.Duration(timeout * float64(time.Second))
	s.BatchWait = time.Duration(batchWait * float64(time.Second))
	s.Headers, err = readHeaders(headers)
	return &s, err
}

// scanEach scans every column by itself, because a failing Scan closes the rows and takes those that follow
// with it. It goes on after an error: the id is needed whatever else is wrong.
func scanEach(types *pgtype.Map, row pgx.CollectableRow, targets ...any) error {
	var errs []error
	values := row.RawValues()
	for i, field := range row.FieldDescriptions() {
		if err := types.Scan(field.DataTypeOID, field.Format, values[i], targets[i]); err != nil {
			errs = append(errs, fmt.Errorf("%s cannot be read, write it anew: %w", field.Name, err))
		}
	}
	return errors.Join(errs...)
}

// expiry is when a previous secret ends to sign. Postgres has times without end, for which Settings has the
// zero time: no time and 'infinity' are never, '-infinity' is long ago.
func expiry(at pgtype.Timestamptz) time.Time {
	if at.Valid && at.InfinityModifier == pgtype.NegativeInfinity {
		return time.Unix(0, 0)
	}
	return at.Time
}

// readHeaders decodes extra request headers, in the order of their names.
func readHeaders(text []byte) ([]delivery.Header, error) {
	var extra map[string]string
	if err := json.Unmarshal(text, &extra); err != nil {
		return nil, fmt.Errorf("headers cannot be read, write them anew: %w", err)
	}
	headers := make([]delivery.Header, 0, len(extra))
	for name, value := range extra {
		headers = append(headers, delivery.Header{Name: name, Value: value})
	}
	slices.SortFunc(headers, func(a, b delivery.Header) int { return strings.Compare(a.Name, b.Name) })
	return headers, nil
}
