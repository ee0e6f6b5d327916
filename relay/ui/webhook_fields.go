package ui

import (
	"strconv"

	"github.com/walhook/walhook/relay/admin"
)

// webhookField is an input of the form. Its label and hint are texts, by its name.
type webhookField struct {
	Name      string   // as in the API
	Kind      string   // text, url, number, area, select, check, secret or moment
	Options   []string // of a select
	Min, Max  string   // of a number, where the browser can tell
	Step      string
	Required  bool
	NewOnly   bool // given when a webhook is made, and never again
	EditOnly  bool
	ForAll    bool // for principals of all tenants only
	Value     string
	Problem   string // what is wrong with what was typed
	Now       string // what is stored, where somebody else has changed the webhook meanwhile
	Different bool   // from what is stored
}

// webhookGroup is a part of the form; the first is what everybody fills in.
type webhookGroup struct {
	Name   string
	Open   bool // something in it is wrong
	Fields []webhookField
}

// webhookGroups is the form, in its order. Browsers get the limits to help who types; they are the database's to enforce.
func webhookGroups() []webhookGroup {
	return []webhookGroup{
		{Name: "essentials", Fields: []webhookField{
			{Name: "name", Kind: "text", Required: true},
			{Name: "url", Kind: "url", Required: true},
			{Name: "events", Kind: "area"},
			{Name: "secret", Kind: "secret"},
			{Name: "description", Kind: "area"},
			{Name: "remove_secret", Kind: "check", EditOnly: true}, // beside it, and so below the secret
			{Name: "is_active", Kind: "check", NewOnly: true},
		}},
		{Name: "request", Fields: []webhookField{
			{Name: "filters", Kind: "area"},
			{Name: "headers", Kind: "area"},
			{Name: "signature", Kind: "select", Options: []string{"sha256", "standard", "standard-ed25519", "github", "stripe", "shopify", "slack", "none"}},
			{Name: "payload_format", Kind: "select", Options: []string{"envelope", "standard", "cloudevents", "cloudevents-binary", "raw"}},
			{Name: "payload_version", Kind: "select", Options: []string{"1", "2"}},
			{Name: "verification", Kind: "select", Options: []string{"none", "cloudevents", "slack"}},
		}},
		{Name: "retries", Fields: []webhookField{
			{Name: "max_retries", Kind: "number", Min: "0", Max: "10", Step: "1", Required: true},
			{Name: "retry_delay", Kind: "number", Min: "0", Max: "86400", Step: "any", Required: true},
			{Name: "timeout", Kind: "number", Min: "0", Max: "300", Step: "any", Required: true},
		}},
		{Name: "flow", Fields: []webhookField{
			{Name: "ordering", Kind: "select", Options: []string{"none", "key", "strict"}},
			{Name: "max_in_flight", Kind: "number", Min: "1", Max: "1000", Step: "1", Required: true},
			{Name: "rate_limit", Kind: "number", Min: "1", Step: "1"},
			{Name: "batch_size", Kind: "number", Min: "1", Max: "1000", Step: "1", Required: true},
			{Name: "batch_wait", Kind: "number", Min: "0", Max: "300", Step: "any", Required: true},
		}},
		{Name: "origin", Fields: []webhookField{
			{Name: "tenant", Kind: "text", NewOnly: true, ForAll: true},
			{Name: "backfill_from", Kind: "moment", NewOnly: true},
		}},
	}
}

// webhookDefaults is what the form of a new webhook begins with: what a row gets that says nothing.
func webhookDefaults() map[string]string {
	return map[string]string{
		"is_active": "yes", "signature": "sha256", "payload_format": "envelope", "payload_version": "1", "verification": "none",
		"max_retries": "3", "retry_delay": "60", "timeout": "30",
		"ordering": "none", "max_in_flight": "16", "batch_size": "1", "batch_wait": "0",
	}
}

// webhookText is a webhook as its form shows it; a secret is not shown.
func webhookText(w admin.Webhook) map[string]string {
	number := func(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }
	values := map[string]string{
		"name": w.Name, "url": w.URL, "description": w.Description, "events": eventText(w.Events),
		"filters": filterText(w.Filters), "headers": headerText(w.Headers),
		"signature": w.Signature, "payload_format": w.PayloadFormat, "payload_version": strconv.Itoa(w.PayloadVersion),
		"verification": w.Verification, "max_retries": strconv.Itoa(w.MaxRetries), "retry_delay": number(w.RetryDelay),
		"timeout": number(w.Timeout), "ordering": w.Ordering, "max_in_flight": strconv.Itoa(w.MaxInFlight),
		"batch_size": strconv.Itoa(w.BatchSize), "batch_wait": number(w.BatchWait),
	}
	if w.RateLimit != nil {
		values["rate_limit"] = strconv.Itoa(*w.RateLimit)
	}
	return values
}
