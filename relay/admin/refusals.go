package admin

import "strings"

// Refusal says what a CHECK constraint is about.
type Refusal struct {
	Column string // the column that is refused
	Remedy string // what to give instead, as the end of a sentence
}

// RefusalOf words a constraint of what users write. Of those that another version of the schema has it knows nothing:
// their names are words already, see Required.
func RefusalOf(constraint string) (Refusal, bool) {
	r, known := refusals[constraint]
	return r, known
}

// Field is the column's name in the API's JSON.
func (r Refusal) Field() string {
	if field, other := fields[r.Column]; other {
		return field
	}
	return r.Column
}

// fields are the columns that have another name in the API.
var fields = map[string]string{
	"event_types": "events",
	"type":        "event_type",
	"payload":     "event_data",
}

// Required makes words of a constraint's name, which says what it requires.
func Required(constraint string) string {
	for _, table := range []string{"subscriptions_", "events_", "event_types_", "api_tokens_", "replays_"} {
		if words, is := strings.CutPrefix(constraint, table); is {
			constraint = words
			break
		}
	}
	return strings.ReplaceAll(constraint, "_", " ")
}

var refusals = map[string]Refusal{
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
	"subscriptions_standard_secret_is_whsec_and_base64":              {"secret", "the signature standard wants whsec_ and base64"},
	"subscriptions_ed25519_secret_is_whsk_and_base64_of_32_or_64":    {"secret", "the signature standard-ed25519 wants whsk_ and the base64 of a private key"},
	"subscriptions_cloudevents_binary_has_no_batches":                {"batch_size", "cloudevents-binary has no batches: use the payload format cloudevents, or a batch size of 1"},
	"subscriptions_backfill_from_is_finite":                          {"backfill_from", "give a moment in time"},
	"subscriptions_signature_is_known":                               {"signature", "give sha256, standard, standard-ed25519, github, stripe, shopify, slack or none"},
	"subscriptions_payload_format_is_known":                          {"payload_format", "give envelope, standard, cloudevents, cloudevents-binary or raw"},
	"subscriptions_payload_version_is_1_or_2":                        {"payload_version", "give 1 or 2"},
	"subscriptions_max_retries_is_0_to_10":                           {"max_retries", "give 0 to 10"},
	"subscriptions_retry_delay_is_0_to_1_day":                        {"retry_delay", "give 0s to 86400s, which is 24h"},
	"subscriptions_timeout_is_at_most_300_s":                         {"timeout", "give more than 0s and at most 300s"},
	"subscriptions_ordering_is_known":                                {"ordering", "give none, key or strict"},
	"subscriptions_max_in_flight_is_1_to_1000":                       {"max_in_flight", "give 1 to 1000"},
	"subscriptions_rate_limit_is_positive":                           {"rate_limit", "give 1 or more, or 0 for no limit"},
	"subscriptions_batch_size_is_1_to_1000":                          {"batch_size", "give 1 to 1000"},
	"subscriptions_batch_wait_is_0_to_5_minutes":                     {"batch_wait", "give 0s to 300s, which is 5m"},
	"subscriptions_verification_is_known":                            {"verification", "give none, cloudevents or slack"},

	"events_type_is_a_dotted_name":               {"type", "give a dotted name of 1 to 255 printable ASCII characters without spaces and *, as patient.created"},
	"events_key_is_1_to_1024_bytes":              {"key", "give it 1 to 1024 bytes, or none"},
	"events_names_are_at_most_255_bytes":         {"correlation_id", "give tenant, source and correlation_id at most 255 bytes each"},
	"events_headers_is_an_object":                {"headers", "write a JSON object"},
	"events_created_at_is_finite":                {"created_at", "give a moment in time"},
	"events_row_is_at_most_10_mb":                {"payload", "give at most 10 MB (10485760 bytes) of JSON text, headers included"},
	"event_types_name_is_a_dotted_name":          {"name", "give a dotted name of 1 to 255 printable ASCII characters without spaces and *, as patient.created"},
	"event_types_number_is_not_negative":         {"number", "give 0 or more"},
	"event_types_validation_is_warn_or_reject":   {"validation", "give warn or reject"},
	"event_types_description_is_at_most_10_kb":   {"description", "give it at most 10 kB"},
	"event_types_schema_is_an_object_or_boolean": {"schema", "write a JSON Schema: an object, true or false"},
	"event_types_schema_is_at_most_1_mb":         {"schema", "give at most 1 MB of JSON"},
	"api_tokens_name_is_1_to_255_characters":     {"name", "give it 1 to 255 characters"},
	"api_tokens_scopes_are_known":                {"scopes", "give read, manage, publish, or several of them"},
	"api_tokens_tenant_is_at_most_255_bytes":     {"tenant", "give it at most 255 bytes"},
	"replays_since_is_before_until":              {"since", "give a moment before until"},
	"replays_range_is_finite":                    {"since", "give moments in time"},
}
