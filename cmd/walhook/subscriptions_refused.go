package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// SQLSTATEs of values that the schema refuses
// (https://www.postgresql.org/docs/current/errcodes-appendix.html).
const (
	checkViolation   = "23514"
	invalidParameter = "22023"
	undefinedColumn  = "42703"
)

// rule is what a CHECK constraint of outbox.subscriptions is about.
type rule struct{ column, remedy string }

// rules words the constraints. Those that another version of the schema has besides are words already: see
// unknownRule.
var rules = map[string]rule{
	"subscriptions_name_is_1_to_255_characters":                      {"name", "give it 1 to 255 characters"},
	"subscriptions_tenant_is_at_most_255_bytes":                      {"tenant", "give it at most 255 bytes"},
	"subscriptions_url_is_http_or_https_without_credentials":         {"url", "write http:// or https://, a host and no user or password; special characters as %20"},
	"subscriptions_event_types_are_names_or_prefixes":                {"event_types", "give dotted names of printable ASCII as patient.created, or prefixes as patient.*"},
	"subscriptions_event_types_are_at_most_1000":                     {"event_types", "give at most 1000, or prefixes as patient.*"},
	"subscriptions_filters_is_an_object":                             {"filters", `write a JSON object as '{"department": "cardiology"}'`},
	"subscriptions_filters_is_at_most_64_kb":                         {"filters", "give at most 64 kB of JSON"},
	"subscriptions_headers_are_safe_strings":                         {"headers", "give at most 50, with names that the relay does not set itself and printable values of at most 4096 bytes"},
	"subscriptions_headers_are_at_most_16_kb":                        {"headers", "give at most 16 kB in all"},
	"subscriptions_description_is_at_most_10_kb":                     {"description", "give it at most 10 kB"},
	"subscriptions_secret_is_1_to_1024_bytes":                        {"secret", "give it 1 to 1024 bytes, or store file:/path"},
	"subscriptions_secret_is_plain_env_name_file_path_or_enc_base64": {"secret", "write the secret itself, env:NAME or file:/path"},
	"subscriptions_standard_secret_is_whsec_and_base64":              {"secret", "the signature standard wants whsec_ and base64: --generate-secret makes one"},
	"subscriptions_ed25519_secret_is_whsk_and_base64_of_32_or_64":    {"secret", "the signature standard-ed25519 wants whsk_ and the base64 of a private key: --generate-secret makes one"},
	"subscriptions_cloudevents_binary_has_no_batches":                {"batch_size", "cloudevents-binary has no batches: use --payload-format cloudevents, or --batch-size 1"},
	"subscriptions_backfill_from_is_finite":                          {"backfill_from", "give a moment in time"},
	"subscriptions_signature_is_known":                               {"signature", "give sha256, standard, standard-ed25519, github, stripe, shopify, slack or none"},
	"subscriptions_payload_format_is_known":                          {"payload_format", "give envelope, standard, cloudevents, cloudevents-binary or raw"},
	"subscriptions_payload_version_is_1_or_2":                        {"payload_version", "give 1 or 2"},
	"subscriptions_max_retries_is_0_to_10":                           {"max_retries", "give 0 to 10"},
	"subscriptions_retry_delay_is_0_to_1_day":                        {"retry_delay", "give 0s to 24h"},
	"subscriptions_timeout_is_at_most_300_s":                         {"timeout", "give more than 0s and at most 300s"},
	"subscriptions_ordering_is_known":                                {"ordering", "give none, key or strict"},
	"subscriptions_max_in_flight_is_1_to_1000":                       {"max_in_flight", "give 1 to 1000"},
	"subscriptions_rate_limit_is_positive":                           {"rate_limit", "give 1 or more, or 0 for no limit"},
	"subscriptions_batch_size_is_1_to_1000":                          {"batch_size", "give 1 to 1000"},
	"subscriptions_batch_wait_is_0_to_5_minutes":                     {"batch_wait", "give 0s to 5m"},
	"subscriptions_verification_is_known":                            {"verification", "give none, cloudevents or slack"},
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
	r, known := rules[pg.ConstraintName]
	switch {
	case pg.ConstraintName == "":
		return pg.Message // a function's own words
	case !known:
		return unknownRule(pg.ConstraintName)
	}
	what := strings.ReplaceAll(r.column, "_", " ")
	if g := find(given, r.column); g != nil && g.shown != "" {
		what += " " + g.shown
	}
	return what + " is refused: " + r.remedy
}

// unknownRule makes words of a constraint's name, which says what it requires.
func unknownRule(constraint string) string {
	words := strings.ReplaceAll(strings.TrimPrefix(constraint, "subscriptions_"), "_", " ")
	return "the subscription is refused, because it is required that " + words
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
