package ui

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/walhook/walhook/relay/admin"
)

// Every page is templates/layout.html with a file of its own, which defines "content" and whatever blocks are rendered
// alone (fragments, live regions). Functions for templates are in funcs.go, texts in texts.go.
//
//go:embed templates
var templateFiles embed.FS

// view is what layout.html, the pages and their blocks get.
type view struct {
	Title   string
	Section string // of the navigation: overview, webhooks, dead, events, slot, catalogue
	Status  int    // of the response; 0: 200
	Refresh int    // seconds after which the browser asks again; 0: never
	Data    any    // the page's own
	// What follows is filled in by page.
	Prefix                      string // of all paths
	Version                     string
	State                       State
	Who                         string // name of the principal; empty: nobody known
	Manage, Publish, Everywhere bool   // what the principal may
	Notice                      string // what was done just now: from the flash cookie, shown once
}

// writeWithin is how long a browser may take to accept a page.
const writeWithin = time.Minute

// page renders templates/<name>.html in the layout.
func (u *UI) page(w http.ResponseWriter, v *visit, name string, p view) error {
	p = u.filled(v, p)
	p.Notice = takeFlash(w, v.Request, u.cookiePath())
	return u.write(w, p.Status, name, "layout", p)
}

// fragment renders one block of templates/<name>.html alone, for htmx. What the block gets is a view.
func (u *UI) fragment(w http.ResponseWriter, v *visit, name, block string, data any) error {
	return u.write(w, 0, name, block, u.filled(v, view{Data: data}))
}

// html renders one block of templates/<name>.html into a string, for live regions. What the block gets is a view.
func (u *UI) html(v *visit, name, block string, data any) (string, error) {
	b, err := u.pages.render(name, block, u.filled(v, view{Data: data}))
	return string(b), err
}

// done sends the browser to another page (a path without prefix) after something was done, which that page says once.
func (u *UI) done(w http.ResponseWriter, v *visit, path, notice string) error {
	setFlash(w, v.Request, u.cookiePath(), notice)
	if v.Header.Get("HX-Request") != "" { // fetch would follow a redirect and swap the whole page in
		w.Header().Set("HX-Redirect", u.Prefix+path)
		w.WriteHeader(http.StatusOK)
		return nil
	}
	w.Header().Set("Location", u.Prefix+path)
	w.WriteHeader(http.StatusSeeOther)
	return nil
}

// filled adds to a view what every page shows. A stranger's (nil) has nothing of it.
func (u *UI) filled(v *visit, p view) view {
	p.Prefix = u.Prefix
	if v == nil || v.who == nil {
		return p
	}
	p.Version = u.Version
	if u.State != nil {
		p.State = u.State()
	}
	p.Who = v.who.Name
	if p.Who == "" {
		p.Who = text("layout.unnamed")
	}
	p.Manage, p.Publish, p.Everywhere = v.who.May(admin.ScopeManage), v.who.May(admin.ScopePublish), v.who.Everywhere()
	return p
}

// write renders before it sends anything, so that a failing template becomes an error page and no half of a page.
func (u *UI) write(w http.ResponseWriter, status int, name, block string, p view) error {
	b, err := u.pages.render(name, block, p)
	if err != nil {
		return err
	}
	send(w, status, "text/html; charset=utf-8", b)
	return nil
}

// send writes a whole body under a deadline, which it takes back: the connection may serve others than the dashboard.
// Whoever does not take the body in time loses the connection, which needs no error.
func send(w http.ResponseWriter, status int, contentType string, body []byte) {
	c := http.NewResponseController(w)
	_ = c.SetWriteDeadline(time.Now().Add(writeWithin))
	defer func() { _ = c.SetWriteDeadline(time.Time{}) }()
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	if status != 0 {
		w.WriteHeader(status)
	}
	if _, err := w.Write(body); err == nil {
		_ = c.Flush()
	}
}

// pages are the parsed templates, by name.
type pages map[string]*template.Template

// parsePages parses all templates. They are embedded, so that an error is one of the program, which tests find.
func parsePages(prefix string) pages {
	files, err := fs.Glob(templateFiles, "templates/*.html")
	if err != nil {
		panic(err)
	}
	layout := template.Must(template.New("layout.html").Funcs(functions(prefix)).Option("missingkey=error").ParseFS(templateFiles, "templates/layout.html"))
	all := pages{}
	for _, file := range files {
		name := strings.TrimSuffix(path.Base(file), ".html")
		if name != "layout" {
			all[name] = template.Must(template.Must(layout.Clone()).ParseFS(templateFiles, file))
		}
	}
	return all
}

func (p pages) render(name, block string, v view) ([]byte, error) {
	t := p[name]
	if t == nil {
		return nil, fmt.Errorf("render %s: there is no such template", name)
	}
	var b bytes.Buffer
	if err := t.ExecuteTemplate(&b, block, v); err != nil {
		return nil, fmt.Errorf("render %s of %s: %w", block, name, err)
	}
	return b.Bytes(), nil
}
