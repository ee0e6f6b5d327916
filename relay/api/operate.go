package api

import (
	"context"
	"net/http"

	"github.com/walhook/walhook/relay/admin"
)

type replicationAnswer struct{ Body admin.Page[admin.Replication] }

type deliveryInput struct {
	ID string `path:"id" doc:"The delivery's id, which receivers see as X-Webhook-ID"`
}

// operate registers what concerns the relay and single deliveries.
func (s *server) operate() {
	register(s, operation{
		id: "get-replication", method: "GET", path: "/replication", tag: tagOperate, summary: "How far the relay is behind",
		description: "One item a replication slot. It concerns the whole system: a token of one tenant may not.",
		scope:       admin.ScopeRead,
	}, func(ctx context.Context, c *call, _ *nothing) (*replicationAnswer, error) {
		slots, err := c.desk.Replication(ctx)
		return &replicationAnswer{admin.Page[admin.Replication]{Items: slots}}, err
	})
	register(s, operation{
		id: "redeliver", method: "POST", path: "/deliveries/{id}/redeliver", tag: tagOperate, summary: "Send a delivery again",
		description: "Under the same id, now.",
		scope:       admin.ScopeManage, status: http.StatusAccepted, errors: []int{http.StatusNotFound, http.StatusConflict},
	}, s.redeliver)
}

type redeliveryAnswer struct {
	Body struct {
		DeliveryID string `json:"delivery_id" format:"uuid"`
	}
}

func (s *server) redeliver(ctx context.Context, c *call, in *deliveryInput) (*redeliveryAnswer, error) {
	id, err := parseID("delivery", in.ID)
	if err != nil {
		return nil, err
	}
	out := &redeliveryAnswer{}
	out.Body.DeliveryID = id.String()
	return out, c.desk.Redeliver(ctx, id)
}
