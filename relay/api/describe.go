package api

import (
	"encoding/json"
	"maps"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/walhook/walhook/relay/admin"
)

// Tags group operations.
const (
	tagWebhooks = "Webhooks"
	tagActions  = "Test, rotate, replay"
	tagInsight  = "Statistics and calls"
	tagEvents   = "Events"
	tagOperate  = "Operation"
)

// describe makes the description that operations are added to. huma's own routes for description and documentation are left
// out: the one is served from memory, the others load scripts from elsewhere.
func (s *server) describe() huma.API {
	c := huma.DefaultConfig("walhook", s.Version)
	c.CreateHooks, c.OpenAPIPath, c.DocsPath, c.SchemasPath = nil, "", "", ""
	c.RejectUnknownQueryParameters = true
	c.Info.Description = "Webhooks from committed rows. Every request needs a token (`walhook token create --name NAME`) as `Authorization: Bearer TOKEN`. " +
		"Errors are problem documents (RFC 9457) that name the member which is wrong. A trailing slash makes no difference."
	c.Info.License = &huma.License{Name: "Apache 2.0", Identifier: "Apache-2.0"}
	c.Servers = []*huma.Server{{URL: s.Prefix + Base}}
	c.Tags = []*huma.Tag{
		{Name: tagWebhooks, Description: "What is sent where: rows of outbox.subscriptions."},
		{Name: tagActions, Description: "What is done with one webhook."},
		{Name: tagInsight, Description: "How webhooks do, and every attempt."},
		{Name: tagEvents, Description: "Publishing, and the catalogue of event types."},
		{Name: tagOperate, Description: "Single deliveries, and the relay."},
	}
	c.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"bearer": {Type: "http", Scheme: "bearer", Description: "Scopes: read looks at everything, manage (which includes read) changes webhooks and event types, tests, replays and redelivers, publish publishes events. A token of one tenant sees only its rows."},
	}
	return huma.NewAPI(c, humago.NewAdapter(s.routes, Base))
}

// schemaOf is the schema of a type, by reference.
func schemaOf[T any](s *server) *huma.Schema {
	return s.api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[T](), true, "")
}

// webhookSchemas are those of the bodies that describe a webhook: a new one, a whole one, and what changes of one.
func (s *server) webhookSchemas() (create, put, patch *huma.Schema) {
	registry := s.api.OpenAPI().Components.Schemas
	create = schemaOf[webhookBody](s)
	made := registry.SchemaFromRef(create.Ref)
	answer := registry.SchemaFromRef(schemaOf[admin.Webhook](s).Ref)
	for _, o := range []*huma.Schema{made, answer} {
		o.Properties["filters"].Type, o.Properties["filters"].AdditionalProperties = huma.TypeObject, true
	}

	whole := *made
	whole.Properties = maps.Clone(made.Properties)
	delete(whole.Properties, "backfill_from")
	for _, name := range readOnly {
		p := *answer.Properties[name]
		p.ReadOnly = true
		whole.Properties[name] = &p
	}
	registry.Map()["WebhookPut"] = &whole

	some := *made
	some.Required = nil
	some.Properties = map[string]*huma.Schema{}
	for name, p := range made.Properties {
		if name == "tenant" || name == "backfill_from" {
			continue
		}
		without := *p
		without.Default = nil
		some.Properties[name] = &without
	}
	registry.Map()["WebhookPatch"] = &some
	reference := func(name string) *huma.Schema { return &huma.Schema{Ref: "#/components/schemas/" + name} }
	return create, reference("WebhookPut"), reference("WebhookPatch")
}

// openAnswers lets the schemas of answers have more members than are described: a client that was generated from them must
// not refuse what a later version adds. Bodies of requests stay closed.
func (s *server) openAnswers() {
	description := s.api.OpenAPI()
	closed := map[string]bool{} // references
	for _, path := range description.Paths {
		for _, method := range methods {
			if o := operationOf(path, method); o != nil && o.RequestBody != nil {
				for _, media := range o.RequestBody.Content {
					closed[media.Schema.Ref] = true
				}
			}
		}
	}
	for name, schema := range description.Components.Schemas.Map() {
		if !closed["#/components/schemas/"+name] && schema.AdditionalProperties == false {
			schema.AdditionalProperties = nil
		}
	}
}

// example is JSON text as a value of the description.
func example(text string) any {
	if text == "" {
		return nil
	}
	return json.RawMessage(text)
}
