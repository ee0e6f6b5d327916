package ui

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/walhook/walhook/relay/admin"
)

// webhookForm is the form of a new webhook, or of one that is changed.
type webhookForm struct {
	Path     string // that it is posted to, and where leaving leads: without /edit
	Back     string
	New      bool
	Revision int
	HasKey   bool   // the webhook has a secret
	Problem  string // with the whole of it
	Stale    bool   // somebody else has changed the webhook since the form was opened
	Retype   bool   // a secret was typed, which is not shown again

	everywhere bool
	typed      map[string]string // by name of the field
	now        map[string]string // what is stored
	known      []string          // event types that are stored
	problems   map[string]string
}

func newWebhookForm(v *visit) *webhookForm {
	return &webhookForm{
		Path: "/webhooks", Back: "/webhooks", New: true, everywhere: v.who.Everywhere(),
		typed: webhookDefaults(), problems: map[string]string{},
	}
}

func webhookFormOf(v *visit, w admin.Webhook) *webhookForm {
	page := "/webhooks/" + w.ID.String()
	stored := webhookText(w)
	return &webhookForm{
		Path: page + "/edit", Back: page, Revision: w.Revision, HasKey: w.HasSecret, everywhere: v.who.Everywhere(),
		typed: stored, now: stored, known: w.Events, problems: map[string]string{},
	}
}

// take replaces what is shown by what was typed.
func (f *webhookForm) take(form url.Values) {
	f.typed = map[string]string{}
	for _, field := range f.fields() {
		f.typed[field.Name] = unixLines(form.Get(field.Name))
	}
}

// fields are those that this form has.
func (f *webhookForm) fields() (all []webhookField) {
	for _, g := range webhookGroups() {
		for _, field := range g.Fields {
			if f.has(field) {
				all = append(all, field)
			}
		}
	}
	return all
}

func (f *webhookForm) has(field webhookField) bool {
	switch {
	case field.NewOnly && !f.New, field.ForAll && !f.everywhere:
		return false
	case field.EditOnly:
		return !f.New && f.HasKey
	}
	return true
}

// Groups are the form's parts with what was typed and what is wrong with it. A secret is never part of a page.
func (f *webhookForm) Groups() (groups []webhookGroup) {
	for _, g := range webhookGroups() {
		shown := webhookGroup{Name: g.Name}
		for _, field := range g.Fields {
			if !f.has(field) {
				continue
			}
			if field.Kind != "secret" {
				field.Value = f.typed[field.Name]
				field.Now = f.now[field.Name]
				field.Different = f.Stale && field.Kind != "check" && field.Value != field.Now
			}
			field.Problem = f.problems[field.Name]
			shown.Open = shown.Open || field.Problem != "" || field.Different
			shown.Fields = append(shown.Fields, field)
		}
		if len(shown.Fields) > 0 {
			groups = append(groups, shown)
		}
	}
	return groups
}

// Wrong are the fields with something wrong, for the summary above the form.
func (f *webhookForm) Wrong() (wrong []webhookField) {
	for _, field := range f.fields() {
		if field.Problem = f.problems[field.Name]; field.Problem != "" {
			wrong = append(wrong, field)
		}
	}
	return wrong
}

// refused takes an error that is the caller's into the form. Others are returned.
func (f *webhookForm) refused(err error) (status int, rest error) {
	names := make([]string, 0, 24)
	for _, field := range f.fields() {
		names = append(names, field.Name)
	}
	problem, problems, status, rest := problemsOf(err, names...)
	f.Problem, f.Stale = problem, status == http.StatusPreconditionFailed
	for name, problem := range problems {
		f.problems[name] = problem
	}
	return status, rest
}

func (u *UI) newWebhook(w http.ResponseWriter, v *visit) error {
	return u.showWebhookForm(w, v, http.StatusOK, newWebhookForm(v))
}

func (u *UI) showWebhookForm(w http.ResponseWriter, v *visit, status int, f *webhookForm) error {
	title := text("webhook.edit")
	if f.New {
		title = text("webhook.new")
	}
	f.Retype = f.typed["secret"] != ""
	return u.page(w, v, "webhook_form", view{Title: title, Section: "webhooks", Status: status, Data: f})
}

// createWebhook makes a webhook of what was typed, or shows what is wrong with it.
func (u *UI) createWebhook(w http.ResponseWriter, v *visit) error {
	f := newWebhookForm(v)
	f.take(v.PostForm)
	change := f.change()
	if len(f.problems) > 0 {
		return u.showWebhookForm(w, v, http.StatusUnprocessableEntity, f)
	}
	hook, err := v.desk.CreateWebhook(v.Context(), change)
	if err != nil {
		return u.showRefused(w, v, f, err)
	}
	return u.done(w, v, "/webhooks/"+hook.ID.String(), text("webhook.created", excerpt(hook.Name)))
}

func (u *UI) showRefused(w http.ResponseWriter, v *visit, f *webhookForm, err error) error {
	status, err := f.refused(err)
	if err != nil {
		return err
	}
	return u.showWebhookForm(w, v, status, f)
}

func (u *UI) editWebhook(w http.ResponseWriter, v *visit) error {
	id, err := pathUUID(v, text("webhook.word"))
	if err != nil {
		return err
	}
	hook, err := v.desk.Webhook(v.Context(), id)
	if err != nil {
		return err
	}
	return u.showWebhookForm(w, v, http.StatusOK, webhookFormOf(v, hook))
}

// updateWebhook changes a webhook, unless somebody else has done so since the form was opened: then the form comes back with
// what was typed and with what is stored, for a person to choose.
func (u *UI) updateWebhook(w http.ResponseWriter, v *visit) error {
	id, err := pathUUID(v, text("webhook.word"))
	if err != nil {
		return err
	}
	hook, err := v.desk.Webhook(v.Context(), id)
	if err != nil {
		return err
	}
	f := webhookFormOf(v, hook)
	f.take(v.PostForm)
	change := f.change()
	revision, err := revisionOf(v.PostForm)
	if err == nil && revision != hook.Revision {
		err = &admin.Error{Kind: admin.Stale, Message: text("webhook.stale")}
	}
	if err != nil {
		return u.showRefused(w, v, f, err)
	}
	if len(f.problems) > 0 {
		return u.showWebhookForm(w, v, http.StatusUnprocessableEntity, f)
	}
	if _, err = v.desk.UpdateWebhook(v.Context(), id, change, revision); err != nil {
		return u.showRefused(w, v, f, err)
	}
	return u.done(w, v, "/webhooks/"+id.String(), text("webhook.updated"))
}

// change is what the form asks for. What cannot be read is noted in problems.
func (f *webhookForm) change() admin.Change {
	c := admin.Change{
		Name: f.trimmed("name"), URL: f.trimmed("url"), Description: f.text("description"), Tenant: f.text("tenant"),
		Signature: f.text("signature"), PayloadFormat: f.text("payload_format"), PayloadVersion: f.whole("payload_version"),
		MaxRetries: f.whole("max_retries"), RetryDelay: f.number("retry_delay"), Timeout: f.number("timeout"),
		Ordering: f.text("ordering"), MaxInFlight: f.whole("max_in_flight"), BatchSize: f.whole("batch_size"),
		BatchWait: f.number("batch_wait"), Verification: f.text("verification"),
	}
	events := eventNames(f.typed["events"], f.known)
	c.Events = &events
	var err error
	if c.Filters, err = filterObject(f.typed["filters"]); err != nil {
		f.problems["filters"] = err.Error()
	}
	headers, err := headerLines(f.typed["headers"])
	if err != nil {
		f.problems["headers"] = err.Error()
	}
	c.Headers = &headers
	f.secret(&c)
	f.limit(&c)
	f.onlyNew(&c)
	return c
}

// secret: nothing typed leaves alone what is stored.
func (f *webhookForm) secret(c *admin.Change) {
	secret, none := f.typed["secret"], ""
	switch remove := f.typed["remove_secret"] != ""; {
	case remove && secret != "":
		f.problems["secret"] = text("webhook.secret_both")
	case remove:
		c.Secret = &none
	case secret != "":
		c.Secret = &secret
	}
}

// limit: nothing typed is no limit.
func (f *webhookForm) limit(c *admin.Change) {
	if none := 0; strings.TrimSpace(f.typed["rate_limit"]) == "" {
		c.RateLimit = &none
		return
	}
	if c.RateLimit = f.whole("rate_limit"); c.RateLimit != nil && *c.RateLimit < 1 {
		f.problems["rate_limit"] = text("webhook.rate_wrong")
	}
}

func (f *webhookForm) onlyNew(c *admin.Change) {
	if !f.New {
		return
	}
	active := f.typed["is_active"] != ""
	c.Active = &active
	from, err := momentOf(f.typed["backfill_from"])
	switch {
	case err != nil:
		f.problems["backfill_from"] = err.Error()
	case !from.IsZero():
		c.BackfillFrom = &from
	}
}

// text is what was typed into a field, nil where the form does not have it.
func (f *webhookForm) text(name string) *string {
	if value, ok := f.typed[name]; ok {
		return &value
	}
	return nil
}

func (f *webhookForm) trimmed(name string) *string {
	value := strings.TrimSpace(f.typed[name])
	if value == "" {
		f.problems[name] = text("webhook.required")
	}
	return &value
}

func (f *webhookForm) whole(name string) *int {
	n, err := strconv.Atoi(strings.TrimSpace(f.typed[name]))
	if err != nil {
		f.problems[name] = text("webhook.whole_wrong", excerpt(f.typed[name]))
		return nil
	}
	return &n
}

func (f *webhookForm) number(name string) *float64 {
	n, err := strconv.ParseFloat(strings.TrimSpace(f.typed[name]), 64)
	if err != nil {
		f.problems[name] = text("webhook.number_wrong", excerpt(f.typed[name]))
		return nil
	}
	return &n
}
