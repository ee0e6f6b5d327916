package api

import (
	"context"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"github.com/walhook/walhook/relay/admin"
)

// operation is one row of the table of operations.
type operation struct {
	id, method, path string // the path as the description spells it
	tag, summary     string
	description      string
	scope            admin.Scope // that it takes
	status           int         // when it succeeds; 0: 200
	body             bodyKind
	schema           *huma.Schema // of the body
	optional         bool         // the body may be left out
	request          string       // example of the body, JSON
	response         string       // example of the answer, JSON
	errors           []int        // besides those that every operation may answer with
}

// everywhere are the errors of every operation.
var everywhere = []int{
	http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusServiceUnavailable,
}

// register adds an operation to the routes and to the description.
func register[I, O any](s *server, op operation, handle func(ctx context.Context, c *call, in *I) (*O, error)) {
	s.routes.announce(op.method, op.path, op.scope, op.body)
	huma.Register(s.api, op.huma(), func(ctx context.Context, in *I) (*O, error) {
		c := callOf(ctx)
		out, err := handle(ctx, c, in)
		if err != nil {
			return nil, s.problem(c, err)
		}
		return out, nil
	})
	op.document(s.api.OpenAPI())
}

func (op operation) huma() huma.Operation {
	status := op.errors
	if op.body != noBody {
		status = append(status, http.StatusRequestTimeout, http.StatusRequestEntityTooLarge,
			http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity)
	}
	status = append(status, everywhere...)
	slices.Sort(status)
	description := "Takes a token with the scope `" + string(op.scope) + "`."
	if op.description != "" {
		description = op.description + "\n\n" + description
	}
	return huma.Operation{
		OperationID: op.id, Method: op.method, Path: op.path, Tags: []string{op.tag}, Summary: op.summary,
		Description: description, DefaultStatus: op.status, Errors: slices.Compact(status),
		Security: []map[string][]string{{"bearer": {string(op.scope)}}},
	}
}

// document adds what huma does not know: bodies are read and decoded by intake and decode.
func (op operation) document(description *huma.OpenAPI) {
	o := operationOf(description.Paths[op.path], op.method)
	if op.body != noBody {
		o.RequestBody = &huma.RequestBody{Required: !op.optional, Content: map[string]*huma.MediaType{}}
		for _, name := range op.body.types() {
			o.RequestBody.Content[name] = &huma.MediaType{Schema: op.schema, Example: example(op.request)}
		}
	}
	for _, p := range o.Parameters {
		if format := formats[p.Name]; format != "" {
			schema := *p.Schema
			schema.Format = format // of the description only: we say ourselves what is wrong with another text
			p.Schema = &schema
		}
	}
	for status, r := range o.Responses {
		if status < "300" && op.response != "" {
			for _, m := range r.Content {
				m.Example = example(op.response)
			}
		}
	}
}

// formats are those of parameters.
var formats = map[string]string{"id": "uuid", "since": "date-time", "until": "date-time"}

func operationOf(p *huma.PathItem, method string) *huma.Operation {
	return map[string]*huma.Operation{
		http.MethodGet: p.Get, http.MethodPost: p.Post, http.MethodPut: p.Put, http.MethodPatch: p.Patch, http.MethodDelete: p.Delete,
	}[method]
}
