package api

import (
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"github.com/walhook/walhook/relay/admin"
)

// Route is one that the mux knows.
type Route struct {
	Pattern string
	Scope   admin.Scope
	Public  bool
}

// Routes lists what a handler of New serves.
func Routes(h http.Handler) []Route {
	var all []Route
	for _, r := range h.(*server).routes.all {
		all = append(all, Route{r.pattern, r.scope, r.public()})
	}
	slices.SortFunc(all, func(a, b Route) int { return slices.Compare([]byte(a.Pattern), []byte(b.Pattern)) })
	return all
}

// AddRoute registers one more, for routes that do what no operation does.
func AddRoute(h http.Handler, pattern string, scope admin.Scope, handler http.Handler) {
	h.(*server).routes.add(&route{pattern: pattern, scope: scope}, handler)
}

// TakeBodyMemory takes all memory for large bodies, and returns what gives it back.
func TakeBodyMemory(h http.Handler) (release func()) {
	memory := h.(*server).intake.memory
	if !memory.TryAcquire(bodyMemory) {
		panic("bodies are under way")
	}
	return func() { memory.Release(bodyMemory) }
}

// LimitBodyTime gives bodies so long.
func LimitBodyTime(h http.Handler, d time.Duration) { h.(*server).intake.time = d }

// BodyExamples lists the examples of bodies in the description, by operation.
func BodyExamples(h http.Handler) map[string][]byte {
	all := map[string][]byte{}
	for _, p := range h.(*server).api.OpenAPI().Paths {
		for _, m := range methods {
			if o := operationOf(p, m); o != nil && o.RequestBody != nil {
				for _, content := range o.RequestBody.Content {
					all[o.OperationID] = []byte(content.Example.(json.RawMessage))
				}
			}
		}
	}
	return all
}

// Limits of bodies.
const (
	SmallBody = smallBody
	LargeBody = largeBody
)

// Decoders that read foreign bytes.
var (
	CheckText    = func(text []byte, depth int) error { return problemOf(checkText(text, depth)) }
	CheckUnique  = func(text []byte) error { return problemOf(checkUnique(text, "body")) }
	DecodeCreate = func(text []byte) (admin.Change, error) {
		b, p := decodeWebhook(text)
		if p != nil {
			return admin.Change{}, p
		}
		return b.change(), nil
	}
	DecodePut = func(text []byte) error {
		_, p := decodeWebhook(text, readOnly...)
		return problemOf(p)
	}
	DecodeTrigger = func(text []byte) ([]byte, error) {
		var b triggerBody
		p := decodeEvent(text, &b)
		return b.EventData, problemOf(p)
	}
	DecodeTest = func(text []byte) error {
		var b testBody
		return problemOf(decodeEvent(text, &b))
	}
	DecodeRotate = func(text []byte) error {
		var b rotateBody
		return problemOf(decodeSmall(text, &b))
	}
	DecodeReplay = func(text []byte) error {
		var b replayBody
		return problemOf(decodeSmall(text, &b))
	}
	DecodeEventType = func(text []byte) error {
		var b eventTypeBody
		return problemOf(decodeSmall(text, &b))
	}
	ParseIfMatch = func(header string) (whatever bool, revisions []int, err error) {
		c, p := parseIfMatch(header)
		return c.any, c.revisions, problemOf(p)
	}
	ParseStatus = func(text string) error {
		_, _, p := parseStatus(text)
		return problemOf(p)
	}
)

func problemOf(p *problem) error {
	if p == nil {
		return nil
	}
	return p
}
