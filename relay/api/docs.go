package api

import (
	"bytes"
	"cmp"
	"embed"
	"encoding/json"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

//go:embed docs/page.html docs/style.css
var docs embed.FS

// publish serves the description and its page, which are made once: nothing in them changes.
func (s *server) publish() {
	description, err := json.Marshal(s.api.OpenAPI())
	if err != nil {
		panic(err) // an example is not JSON
	}
	style, err := docs.ReadFile("docs/style.css")
	if err != nil {
		panic(err)
	}
	s.file("/openapi.json", "application/json", description)
	s.file("/docs/style.css", "text/css; charset=utf-8", style)
	s.file("/docs", "text/html; charset=utf-8", s.page())
}

func (s *server) file(path, contentType string, content []byte) {
	s.routes.add(&route{pattern: "GET " + Base + path}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Content-Type", contentType)
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("Referrer-Policy", "no-referrer")
		_, _ = w.Write(content) // the client has gone
	}))
}

// page is the documentation for people: no scripts, nothing from elsewhere.
func (s *server) page() []byte {
	description := s.api.OpenAPI()
	t := template.Must(template.New("page.html").ParseFS(docs, "docs/page.html"))
	var page bytes.Buffer
	err := t.Execute(&page, map[string]any{
		"Base": s.Prefix + Base, "Info": description.Info, "Groups": s.groups(description),
	})
	if err != nil {
		panic(err)
	}
	return page.Bytes()
}

// docGroup are the operations under one heading.
type docGroup struct {
	Name       string
	Operations []docOperation
}

type docOperation struct {
	*huma.Operation
	Scope     string
	Paragraph []string
	Inputs    []docInput
	Body      []docField
	Example   string
	Curl      string
	Answers   []docAnswer
	Answer    []docField
}

// docInput is a parameter.
type docInput struct {
	docField
	In string
}

type docField struct {
	Name, Type, About string
	Required          bool
}

type docAnswer struct{ Status, About string }

func (s *server) groups(description *huma.OpenAPI) []docGroup {
	var groups []docGroup
	for _, tag := range description.Tags {
		g := docGroup{Name: tag.Name}
		for _, path := range slices.Sorted(maps.Keys(description.Paths)) {
			for _, method := range methods {
				if o := operationOf(description.Paths[path], method); o != nil && o.Tags[0] == tag.Name {
					g.Operations = append(g.Operations, s.documented(o, description.Components.Schemas))
				}
			}
		}
		groups = append(groups, g)
	}
	return groups
}

func (s *server) documented(o *huma.Operation, schemas huma.Registry) docOperation {
	d := docOperation{Operation: o, Scope: o.Security[0]["bearer"][0], Paragraph: strings.Split(o.Description, "\n\n")}
	d.Paragraph = d.Paragraph[:len(d.Paragraph)-1] // the last one is the scope's
	for _, p := range o.Parameters {
		schema := *p.Schema
		schema.Description = p.Description
		d.Inputs = append(d.Inputs, docInput{docField{p.Name, typeName(&schema, schemas), about(&schema), p.Required}, p.In})
	}
	curl := []string{"curl " + option(o.Method) + "'" + s.Prefix + Base + o.Path + "'", "-H 'Authorization: Bearer TOKEN'"}
	if o.RequestBody != nil {
		name := slices.Min(slices.Collect(maps.Keys(o.RequestBody.Content)))
		media := o.RequestBody.Content[name]
		d.Body, d.Example = fieldsIn(media.Schema, schemas), indented(media.Example)
		curl = append(curl, "-H 'Content-Type: "+name+"'", "-d '"+compact(media.Example)+"'")
	}
	d.Curl = strings.Join(curl, " \\\n  ")
	for _, status := range slices.Sorted(maps.Keys(o.Responses)) {
		r := o.Responses[status]
		d.Answers = append(d.Answers, docAnswer{status, r.Description})
		if m := r.Content["application/json"]; m != nil && status < "300" {
			d.Answer = fieldsIn(m.Schema, schemas)
		}
	}
	return d
}

func option(method string) string {
	if method == http.MethodGet {
		return ""
	}
	return "-X " + method + " "
}

// fieldsIn lists the members of an object, the required ones first.
func fieldsIn(schema *huma.Schema, schemas huma.Registry) []docField {
	object := resolved(schema, schemas)
	var fields []docField
	for name, p := range object.Properties {
		fields = append(fields, docField{Name: name, Type: typeName(p, schemas), About: about(p), Required: slices.Contains(object.Required, name)})
	}
	slices.SortFunc(fields, func(a, b docField) int {
		if a.Required != b.Required {
			return map[bool]int{true: -1, false: 1}[a.Required]
		}
		return cmp.Compare(a.Name, b.Name)
	})
	return fields
}

func resolved(s *huma.Schema, schemas huma.Registry) *huma.Schema {
	if s.Ref != "" {
		return schemas.SchemaFromRef(s.Ref)
	}
	return s
}

func typeName(s *huma.Schema, schemas huma.Registry) string {
	target := resolved(s, schemas)
	name := cmp.Or(target.Type, "any JSON")
	if target.Type == huma.TypeArray {
		name = "array of " + typeName(target.Items, schemas)
	}
	if s.Ref != "" {
		name = s.Ref[strings.LastIndexByte(s.Ref, '/')+1:]
	}
	if target.Nullable {
		name += " or null"
	}
	return name
}

// about is what is worth knowing of a member besides its type.
func about(s *huma.Schema) string {
	var parts []string
	if s.Description != "" {
		parts = append(parts, s.Description)
	}
	if len(s.Enum) > 0 {
		var names []string
		for _, e := range s.Enum {
			names = append(names, compact(e))
		}
		parts = append(parts, "One of "+strings.Join(names, ", "))
	}
	if s.Minimum != nil {
		parts = append(parts, "At least "+compact(*s.Minimum))
	}
	if s.Maximum != nil {
		parts = append(parts, "At most "+compact(*s.Maximum))
	}
	if s.Default != nil {
		parts = append(parts, "Default "+compact(s.Default))
	}
	if s.ReadOnly {
		parts = append(parts, "Ignored")
	}
	return strings.Join(parts, ". ")
}

func compact(v any) string { return encoded(v, "") }

func indented(v any) string { return encoded(v, "  ") }

func encoded(v any, indent string) string {
	if v == nil {
		return ""
	}
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	if err := e.Encode(v); err != nil {
		panic(err) // an example is not JSON
	}
	return strings.TrimSpace(text.String())
}
