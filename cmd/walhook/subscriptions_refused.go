package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/walhook/walhook/relay/admin"
)

// SQLSTATEs of values that the schema refuses
// (https://www.postgresql.org/docs/current/errcodes-appendix.html).
const (
	checkViolation   = "23514"
	invalidParameter = "22023"
	undefinedColumn  = "42703"
)

// flagRemedies name the flags, where the remedy has any.
var flagRemedies = map[string]string{
	"subscriptions_standard_secret_is_whsec_and_base64":           "the signature standard wants whsec_ and base64: --generate-secret makes one",
	"subscriptions_ed25519_secret_is_whsk_and_base64_of_32_or_64": "the signature standard-ed25519 wants whsk_ and the base64 of a private key: --generate-secret makes one",
	"subscriptions_cloudevents_binary_has_no_batches":             "cloudevents-binary has no batches: use --payload-format cloudevents, or --batch-size 1",
}

// explainRefusal turns what Postgres says of a refused value into a sentence that names the value and the
// remedy. What Postgres says besides, such as the failing row with its secret, is left out. Other errors pass.
func explainRefusal(err error, given []assignment) error {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return err
	}
	switch pg.Code {
	case invalidParameter:
		return fmt.Errorf("%w: %s", errUsage, pg.Message)
	case checkViolation:
		return fmt.Errorf("%w: %s", errUsage, refusal(pg, given))
	case undefinedColumn:
		return fmt.Errorf("%w: the schema is of another version than this program: run walhook init (%s)", errUsage, pg.Message)
	}
	return err
}

func refusal(pg *pgconn.PgError, given []assignment) string {
	r, known := admin.RefusalOf(pg.ConstraintName)
	switch {
	case pg.ConstraintName == "":
		return pg.Message // a function's own words
	case !known:
		return "the subscription is refused, because it is required that " + admin.Required(pg.ConstraintName)
	}
	if remedy, has := flagRemedies[pg.ConstraintName]; has {
		r.Remedy = remedy
	}
	what := strings.ReplaceAll(r.Column, "_", " ")
	if g := find(given, r.Column); g != nil && g.shown != "" {
		what += " " + g.shown
	}
	return what + " is refused: " + r.Remedy
}

// withoutPassword shows a URL that may have credentials, which is one reason to refuse it.
func withoutPassword(text string) string {
	at := strings.LastIndexByte(text, '@')
	if at < 0 {
		return text
	}
	scheme, _, found := strings.Cut(text, "://")
	if !found {
		return "[redacted]" + text[at:]
	}
	return scheme + "://[redacted]" + text[at:]
}
