package ui

import (
	"context"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/walhook/walhook/relay/admin"
)

func (u *UI) deliveryRoutes() []route {
	return []route{
		{pattern: "GET /deliveries/{id}", scope: admin.ScopeRead, handle: u.delivery},
		{pattern: "GET /deliveries/{id}/live", scope: admin.ScopeRead, handle: u.deliveryLive},
		{pattern: "POST /deliveries/{id}/redeliver", scope: admin.ScopeManage, handle: u.redeliver},
	}
}

// deliveryPage is what delivery.html shows.
type deliveryPage struct {
	admin.Delivery
	Badge    badge
	Final    bool // nothing happens any more, unless somebody asks for it
	Attempts []attempt
}

// attempt is a call as a page shows it.
type attempt struct {
	admin.Call
	Newest       bool
	Sent, Answer shown
	Refused      string // why it failed
}

// badge is a state in a word and a class of app.css.
type badge struct{ Class, Text string }

// deliveryBadge says a state, as in admin.Delivery, for people.
func deliveryBadge(state string) badge {
	class := "idle"
	switch state {
	case "delivered":
		class = "ok"
	case "failed", "dead":
		class = "bad"
	case "waiting", "held":
		class = "warn"
	}
	return badge{class, text("delivery.state." + state)}
}

func newDeliveryPage(d admin.Delivery) deliveryPage {
	p := deliveryPage{Delivery: d, Badge: deliveryBadge(d.State)}
	p.Final = d.State == "delivered" || d.State == "failed" || d.State == "dead"
	for i, c := range d.Calls {
		a := attempt{Call: c, Newest: i == 0, Sent: show(c.Payload, shownOne)}
		if c.PayloadTruncated { // how long it is nobody says
			a.Sent.Cut, a.Sent.Bytes = true, 0
		}
		if c.ResponseBody != nil {
			a.Answer = show(*c.ResponseBody, shownOne)
		}
		if c.Error != nil {
			a.Refused = *c.Error
		}
		p.Attempts = append(p.Attempts, a)
	}
	return p
}

func (u *UI) delivery(w http.ResponseWriter, v *visit) error {
	id, err := pathUUID(v, text("delivery.word"))
	if err != nil {
		return err
	}
	d, err := v.desk.Delivery(v.Context(), id)
	if err != nil {
		return err
	}
	return u.page(w, v, "delivery", view{Title: text("delivery.title"), Section: "events", Data: newDeliveryPage(d)})
}

// deliveryLive sends the page's live part again as attempts are made. One that has come to its end is looked at every few
// looks only: somebody may send it again.
func (u *UI) deliveryLive(w http.ResponseWriter, v *visit) error {
	id, err := pathUUID(v, text("delivery.word"))
	if err != nil {
		return err
	}
	if _, err := v.desk.Delivery(v.Context(), id); err != nil {
		return err
	}
	var last []message
	var rest time.Time // until when last is good
	return u.hub.serve(w, v, "delivery/"+id.String(), func(ctx context.Context) ([]message, error) {
		if time.Now().Before(rest) {
			return last, nil
		}
		d, err := v.desk.Delivery(ctx, id)
		if err != nil {
			return nil, err
		}
		p := newDeliveryPage(d)
		html, err := u.html(v, "delivery", "live", p)
		if err != nil {
			return nil, err
		}
		if p.Final {
			const pause = 10 * time.Second
			rest = time.Now().Add(pause)
		}
		last = []message{{data: html}}
		return last, nil
	})
}

func (u *UI) redeliver(w http.ResponseWriter, v *visit) error {
	id, err := pathUUID(v, text("delivery.word"))
	if err != nil {
		return err
	}
	if err := v.desk.Redeliver(v.Context(), id); err != nil {
		return err
	}
	return u.done(w, v, "/deliveries/"+id.String(), text("delivery.redelivered"))
}

// pathUUID is the id in a request's path; what names the thing for people.
func pathUUID(v *visit, what string) (uuid.UUID, error) {
	id, err := uuid.Parse(v.PathValue("id"))
	if err != nil || id.String() != v.PathValue("id") {
		return uuid.Nil, &admin.Error{Kind: admin.NotFound, Message: text("id.none", what, start(v.PathValue("id"), 64))}
	}
	return id, nil
}
