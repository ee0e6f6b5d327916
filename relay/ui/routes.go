package ui

import (
	"net/http"

	"github.com/walhook/walhook/relay/admin"
)

// route is one thing that the dashboard answers. Everything takes a principal that has the scope, but for what public lists.
type route struct {
	pattern    string // method and path, as http.ServeMux has them; paths end in {$} where nothing may follow
	scope      admin.Scope
	everywhere bool // concerns the whole system: nothing for principals of one tenant
	handle     func(http.ResponseWriter, *visit) error
}

// visit is a request of somebody who is known.
type visit struct {
	*http.Request
	who  *admin.Principal
	desk *admin.Desk
}

// routes lists all that takes a principal, page by page.
func (u *UI) routes() []route {
	var all []route
	for _, part := range [][]route{
		u.overviewRoutes(), u.webhookRoutes(), u.deliveryRoutes(), u.deadLetterRoutes(), u.eventRoutes(), u.slotRoutes(), u.catalogueRoutes(),
	} {
		all = append(all, part...)
	}
	return all
}
