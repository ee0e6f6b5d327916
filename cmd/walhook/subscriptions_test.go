package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
)

func TestRefusals(t *testing.T) {
	t.Parallel()
	refused := func(constraint string, given ...assignment) string {
		err := &pgconn.PgError{Code: checkViolation, Message: "new row violates", Detail: "Failing row contains (s3cret)", ConstraintName: constraint}
		explained := explainRefusal(fmt.Errorf("add: %w", err), given)
		require.ErrorIs(t, explained, errUsage)
		require.NotContains(t, explained.Error(), "s3cret")
		return explained.Error()
	}
	require.Equal(t, `usage: max retries "11" is refused: give 0 to 10`, refused("subscriptions_max_retries_is_0_to_10", assignment{"max_retries", 11, `"11"`}))
	require.Equal(t, "usage: max retries is refused: give 0 to 10", refused("subscriptions_max_retries_is_0_to_10"))
	require.Equal(t, "usage: batch size is refused: cloudevents-binary has no batches: use --payload-format cloudevents, or --batch-size 1",
		refused("subscriptions_cloudevents_binary_has_no_batches"))
	require.Equal(t, "usage: the subscription is refused, because it is required that colour is blue", refused("subscriptions_colour_is_blue"))
	require.Equal(t, "usage: new row violates", refused(""), "a function says it itself")
	other := fmt.Errorf("add: %w", &pgconn.PgError{Code: "40001"})
	require.Equal(t, other, explainRefusal(other, nil))
}

func TestURLsAreShownWithoutPasswords(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"https://host/a":                "https://host/a",
		"https://u:s3cret@host/a":       "https://[redacted]@host/a",
		"https://u:s3@cret@host":        "https://[redacted]@host",
		"https://u:s3/cret@host":        "https://[redacted]@host",
		"u:s3cret@host":                 "[redacted]@host",
		"https://u:s3cret@h/?to=x@host": "https://[redacted]@host",
	} {
		require.Equal(t, want, withoutPassword(url))
	}
}

func TestMoments(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"2h": now.Add(-2 * time.Hour), "7d": now.AddDate(0, 0, -7), "0s": now,
		"2026-01-01T00:00:00.5+01:00": time.Date(2025, 12, 31, 23, 0, 0, 5e8, time.UTC),
	} {
		got, err := parseMoment(text, now)
		require.NoError(t, err)
		require.True(t, want.Equal(got), "%s is %s", text, got)
	}
	for _, text := range []string{"", "-2h", "2026-01-01", "yesterday", "2h ago"} {
		_, err := parseMoment(text, now)
		require.ErrorContains(t, err, "write it as 2026-01-31T12:00:00Z")
	}
}
