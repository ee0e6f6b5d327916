package ui

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/walhook/walhook/relay/admin"
)

// A test waits as long as its attempt may take, and a little for the relay to take it; but nobody looks at a page that
// does nothing for longer than testAtMost.
const (
	testGrace  = 5 * time.Second
	testAtMost = 60 * time.Second
)

// defaultOverlap is how long the old secret still signs beside a new one, unless it is said otherwise.
const defaultOverlap = 24 * time.Hour

// webhookActions is what came of an action that does not lead to another page: a test's result, or what was wrong.
type webhookActions struct {
	Open     string // the action that was taken: test, rotate, replay, delete; empty: none
	Problem  string
	Problems map[string]string // by input
	Typed    map[string]string // never a secret
	Test     *admin.Call
}

// Wrong is what is wrong with an input of the action that was taken.
func (a webhookActions) Wrong(input string) string { return a.Problems[input] }

// Answer is what the receiver of a test said. A body is 10 kB at most.
func (a webhookActions) Answer() string {
	if a.Test == nil || a.Test.ResponseBody == nil {
		return ""
	}
	return show(*a.Test.ResponseBody, shownOne).Text
}

// orDefaults fills in what the inputs begin with.
func (a webhookActions) orDefaults() webhookActions {
	typed := map[string]string{
		"event_type": "webhook.test", "test_data": `{"test": true}`, "overlap_hours": strconv.Itoa(int(defaultOverlap.Hours())),
	}
	for name, value := range a.Typed {
		typed[name] = value
	}
	a.Typed = typed
	return a
}

// typedValues are the values of some inputs, to be shown again.
func typedValues(form url.Values, names ...string) map[string]string {
	typed := map[string]string{}
	for _, name := range names {
		typed[name] = unixLines(form.Get(name))
	}
	return typed
}

// problemsOf sorts an error that is the caller's: to its input where that is known, else to the whole form. Other errors,
// and that there is no such webhook, are returned as they are.
func problemsOf(err error, inputs ...string) (problem string, problems map[string]string, status int, rest error) {
	var e *admin.Error
	if !errors.As(err, &e) {
		return "", nil, 0, err
	}
	switch status = e.Kind.Status(); e.Kind {
	case admin.Stale:
		return text("webhook.stale"), nil, status, nil
	case admin.Invalid, admin.Conflict:
		if slices.Contains(inputs, e.Field) {
			return "", map[string]string{e.Field: e.Message}, status, nil
		}
		return e.Error(), nil, status, nil
	}
	return "", nil, 0, err
}

// take notes an error that is the caller's. Others are returned.
func (a *webhookActions) take(err error, inputs ...string) (status int, rest error) {
	a.Problem, a.Problems, status, rest = problemsOf(err, inputs...)
	return status, rest
}

// failed shows the webhook's page with what was wrong with an action, or returns errors that are not the caller's.
func (u *UI) failed(w http.ResponseWriter, v *visit, err error, a webhookActions, inputs ...string) error {
	status, err := a.take(err, inputs...)
	if err != nil {
		return err
	}
	return u.webhookWith(w, v, status, a)
}

// testWebhook sends a test and shows what came back.
func (u *UI) testWebhook(w http.ResponseWriter, v *visit) error {
	id, err := pathUUID(v, text("webhook.word"))
	if err != nil {
		return err
	}
	hook, err := v.desk.Webhook(v.Context(), id)
	if err != nil {
		return err
	}
	actions, status := webhookActions{Open: "test", Typed: typedValues(v.PostForm, "event_type", "test_data")}, http.StatusOK
	call, err := sendTest(v, hook)
	if err == nil {
		actions.Test = &call
	} else if status, err = actions.take(err, "event_type", "test_data"); err != nil {
		return err
	}
	return u.tested(w, v, hook, status, actions)
}

func sendTest(v *visit, hook admin.Webhook) (admin.Call, error) {
	eventType, data := strings.TrimSpace(v.PostForm.Get("event_type")), strings.TrimSpace(v.PostForm.Get("test_data"))
	if eventType == "" {
		return admin.Call{}, &admin.Error{Kind: admin.Invalid, Field: "event_type", Message: text("webhook.required")}
	}
	if data == "" {
		data = "{}"
	}
	if err := checkJSON(data); err != nil {
		return admin.Call{}, &admin.Error{Kind: admin.Invalid, Field: "test_data", Message: err.Error()}
	}
	wait := min(time.Duration(hook.Timeout*float64(time.Second))+testGrace, testAtMost)
	return v.desk.SendTest(v.Context(), hook.ID, eventType, json.RawMessage(data), wait)
}

// tested shows what came of a test: htmx gets the form with it alone.
func (u *UI) tested(w http.ResponseWriter, v *visit, hook admin.Webhook, status int, actions webhookActions) error {
	if v.Header.Get("HX-Request") == "" {
		return u.webhookWith(w, v, status, actions)
	}
	return u.fragment(w, v, "webhook", "test", webhookPage{webhookState: webhookState{Webhook: hook}, Actions: actions.orDefaults()})
}

func (u *UI) activateWebhook(w http.ResponseWriter, v *visit) error {
	return u.switchWebhook(w, v, true, text("webhook.activated"))
}

func (u *UI) deactivateWebhook(w http.ResponseWriter, v *visit) error {
	return u.switchWebhook(w, v, false, text("webhook.deactivated"))
}

func (u *UI) switchWebhook(w http.ResponseWriter, v *visit, active bool, notice string) error {
	id, err := pathUUID(v, text("webhook.word"))
	if err != nil {
		return err
	}
	if _, err := v.desk.SetActive(v.Context(), id, active); err != nil {
		return u.failed(w, v, err, webhookActions{})
	}
	return u.done(w, v, "/webhooks/"+id.String(), notice)
}

// rotateSecret gives a webhook a new secret. What was typed as secret is never shown again.
func (u *UI) rotateSecret(w http.ResponseWriter, v *visit) error {
	id, err := pathUUID(v, text("webhook.word"))
	if err != nil {
		return err
	}
	form := v.PostForm
	actions := webhookActions{Open: "rotate", Typed: typedValues(form, "overlap_hours")}
	overlap, err := overlapOf(form.Get("overlap_hours"))
	if err == nil && form.Get("secret") == "" {
		err = &admin.Error{Kind: admin.Invalid, Field: "secret", Message: text("webhook.secret_missing")}
	}
	if err == nil {
		_, err = v.desk.RotateSecret(v.Context(), id, form.Get("secret"), overlap)
	}
	if err != nil {
		return u.failed(w, v, err, actions, "secret", "overlap_hours")
	}
	return u.done(w, v, "/webhooks/"+id.String(), text("webhook.rotated"))
}

// overlapOf reads hours, of which parts may be given; a year is enough for every change of keys.
func overlapOf(typed string) (time.Duration, error) {
	hours, err := strconv.ParseFloat(strings.TrimSpace(typed), 64)
	if err != nil || !(hours >= 0 && hours <= 24*365) { // so that NaN is none
		return 0, &admin.Error{Kind: admin.Invalid, Field: "overlap_hours", Message: text("webhook.overlap_wrong", excerpt(typed))}
	}
	return time.Duration(hours * float64(time.Hour)), nil
}

// replayWebhook asks for past events to be sent again.
func (u *UI) replayWebhook(w http.ResponseWriter, v *visit) error {
	id, err := pathUUID(v, text("webhook.word"))
	if err != nil {
		return err
	}
	form := v.PostForm
	actions := webhookActions{Open: "replay", Typed: typedValues(form, "since", "until", "only_failed")}
	since, until, err := rangeOf(form)
	if err == nil {
		_, err = v.desk.Replay(v.Context(), id, since, until, form.Get("only_failed") != "")
	}
	if err != nil {
		return u.failed(w, v, err, actions, "since", "until")
	}
	return u.done(w, v, "/webhooks/"+id.String(), text("webhook.replayed"))
}

// rangeOf reads from when to when; until may be zero, which is now.
func rangeOf(form url.Values) (since, until time.Time, err error) {
	wrong := func(field, message string) error {
		return &admin.Error{Kind: admin.Invalid, Field: field, Message: message}
	}
	if since, err = momentOf(form.Get("since")); err != nil {
		return since, until, wrong("since", err.Error())
	}
	if since.IsZero() {
		return since, until, wrong("since", text("webhook.since_missing"))
	}
	if until, err = momentOf(form.Get("until")); err != nil {
		return since, until, wrong("until", err.Error())
	}
	return since, until, nil
}

// deleteWebhook removes a webhook when that was confirmed, and nobody has changed it since it was looked at.
func (u *UI) deleteWebhook(w http.ResponseWriter, v *visit) error {
	id, err := pathUUID(v, text("webhook.word"))
	if err != nil {
		return err
	}
	form := v.PostForm
	actions := webhookActions{Open: "delete"}
	if form.Get("confirm") != "yes" {
		unconfirmed := &admin.Error{Kind: admin.Invalid, Field: "confirm", Message: text("webhook.unconfirmed")}
		return u.failed(w, v, unconfirmed, actions, "confirm")
	}
	revision, err := revisionOf(form)
	if err == nil {
		err = v.desk.DeleteWebhook(v.Context(), id, revision)
	}
	if err != nil {
		return u.failed(w, v, err, actions)
	}
	return u.done(w, v, "/webhooks", text("webhook.deleted"))
}

// revisionOf reads which revision of a webhook somebody has looked at. 0 would mean any, and is refused.
func revisionOf(form url.Values) (int, error) {
	revision, err := strconv.Atoi(form.Get("revision"))
	if err != nil || revision <= 0 {
		return 0, &admin.Error{Kind: admin.Stale, Message: text("webhook.stale")}
	}
	return revision, nil
}
