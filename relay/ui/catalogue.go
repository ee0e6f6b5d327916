package ui

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/walhook/walhook/relay/admin"
)

func (u *UI) catalogueRoutes() []route {
	return []route{
		{pattern: "GET /event-types", scope: admin.ScopeRead, handle: u.catalogue},
		{pattern: "POST /event-types", scope: admin.ScopeManage, everywhere: true, handle: u.addType},
	}
}

// cataloguePage is what catalogue.html shows.
type cataloguePage struct {
	Items       []listedType
	First, Next string // paths; empty: this is the first, the last page
	Form        typeForm
}

// listedType is an event type with its schema for people.
type listedType struct {
	admin.EventType
	Shown  shown
	Events string // path of the search for its events
}

// typeForm is what was typed into the form, and what is wrong with it by field.
type typeForm struct {
	Name, Number, Description, Schema, Validation string
	Errors                                        map[string]string
}

// Wrong is what is wrong with a field. What belongs to none of the form's fields is said above them, under "".
func (f typeForm) Wrong(field string) string { return f.Errors[field] }

func (u *UI) catalogue(w http.ResponseWriter, v *visit) error {
	p, err := listTypes(v)
	if err != nil {
		return err
	}
	return u.page(w, v, "catalogue", view{Title: text("catalogue.title"), Section: "catalogue", Data: p})
}

func listTypes(v *visit) (cataloguePage, error) {
	var p cataloguePage
	cursor := v.URL.Query().Get("cursor")
	types, err := v.desk.EventTypes(v.Context(), admin.DefaultLimit, cursor)
	if err != nil {
		return p, err
	}
	for _, t := range types.Items {
		p.Items = append(p.Items, listedType{
			EventType: t, Shown: show(string(t.Schema), shownOne), Events: withQuery("/events", searchFor(t.Name, "", "")),
		})
	}
	p.First, p.Next = pager("/event-types", url.Values{}, cursor, types.Next)
	return p, nil
}

func (u *UI) addType(w http.ResponseWriter, v *visit) error {
	f := typeForm{
		Name: strings.TrimSpace(v.PostForm.Get("name")), Number: strings.TrimSpace(v.PostForm.Get("number")),
		Description: strings.TrimSpace(v.PostForm.Get("description")), Schema: strings.TrimSpace(v.PostForm.Get("schema")),
		Validation: v.PostForm.Get("validation"),
	}
	t, err := f.asType()
	if err == nil {
		t, err = v.desk.CreateEventType(v.Context(), t)
	}
	if err != nil {
		return u.addTypeAgain(w, v, f, err)
	}
	return u.done(w, v, "/event-types", text("catalogue.added", t.Name))
}

// asType is the type that was typed.
func (f typeForm) asType() (admin.EventType, error) {
	t := admin.EventType{Name: f.Name, Description: f.Description, Validation: f.Validation}
	if f.Number != "" {
		n, err := strconv.ParseInt(f.Number, 10, 32)
		if err != nil {
			return t, &admin.Error{Kind: admin.Invalid, Field: "number", Message: text("catalogue.wrong_number", start(f.Number, 64))}
		}
		number := int(n)
		t.Number = &number
	}
	if f.Schema != "" {
		if !json.Valid([]byte(f.Schema)) {
			return t, &admin.Error{Kind: admin.Invalid, Field: "schema", Message: text("catalogue.wrong_schema")}
		}
		t.Schema = json.RawMessage(f.Schema)
	}
	return t, nil
}

// addTypeAgain shows the form again, with what was typed and what is wrong with it.
func (u *UI) addTypeAgain(w http.ResponseWriter, v *visit, f typeForm, err error) error {
	fields := map[string]string{"name": "name", "number": "number", "description": "description", "schema": "schema", "validation": "validation"}
	if f.Errors = fieldErrors(err, fields); f.Errors == nil {
		return err
	}
	p, err := listTypes(v)
	if err != nil {
		return err
	}
	p.Form = f
	return u.page(w, v, "catalogue", view{Title: text("catalogue.title"), Section: "catalogue", Status: http.StatusUnprocessableEntity, Data: p})
}
