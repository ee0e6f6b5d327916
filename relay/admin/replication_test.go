package admin_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/admin"
)

// slot makes the checkpoint of a slot, and the slot unless there is to be none.
func (o office) slot(t testing.TB, really bool) string {
	t.Helper()
	name := "admin_" + uuid.NewString()[:8]
	if really {
		o.exec(t, "SELECT pg_create_logical_replication_slot($1, 'pgoutput')", name)
	}
	o.exec(t, `INSERT INTO outbox.checkpoint (slot_name, lsn, confirmed_lsn, recorded_through, system_identifier, timeline)
		VALUES ($1, '0/1', '0/1', now(), 'x', 1)`, name)
	return name
}

func TestReplication(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	slots, err := o.desk().Replication(t.Context())
	require.NoError(t, err)
	require.NotNil(t, slots)
	require.Empty(t, slots)
	there, lost := o.slot(t, true), o.slot(t, false)
	o.wait(t, "deliveries", o.webhook(t, "a", "w"), 3)
	slots, err = o.desk().Replication(t.Context())
	require.NoError(t, err)
	require.Len(t, slots, 2)
	for _, s := range slots {
		require.EqualValues(t, 3, s.QueueDepth)
		require.Equal(t, "0/1", s.CheckpointLSN)
		require.False(t, s.Active)
		if s.SlotName == there {
			require.NotNil(t, s.LagBytes)
			require.Regexp(t, `^[0-9A-F]+/[0-9A-F]+$`, *s.ConfirmedLSN)
		} else {
			require.Equal(t, lost, s.SlotName)
			require.Equal(t, "lost", s.WALStatus)
			require.Nil(t, s.ConfirmedLSN)
		}
	}
	_, err = o.desk("a").Replication(t.Context())
	requireError(t, err, admin.Forbidden, "")
	_, err = o.desk("").Replication(t.Context())
	requireError(t, err, admin.Forbidden, "")
}

func TestPulse(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	a, b := o.webhook(t, "a", "w"), o.webhook(t, "b", "w")
	o.attempts(t, a, 30)
	o.attempts(t, b, 12)
	o.wait(t, "deliveries", a, 2)
	o.wait(t, "dead_letters", b, 3)
	o.exec(t, "INSERT INTO outbox.recorded (minute, events) VALUES (date_trunc('minute', now()), 42)")
	slot := o.slot(t, true)
	store := admin.New(o.Pool, admin.Options{Slot: slot})
	pulse := func(s *admin.Store, tenant *string) admin.Pulse {
		p, err := s.For(&admin.Principal{Tenant: tenant}).Pulse(t.Context())
		require.NoError(t, err)
		require.WithinDuration(t, time.Now(), p.At, time.Minute)
		require.Equal(t, p.Attempts, p.Succeeded+p.Failed)
		return p
	}
	for _, c := range []struct {
		of                    admin.Pulse
		attempts, queue, dead int64
	}{
		{pulse(store, nil), 42, 2, 3}, {pulse(store, ptr("a")), 30, 2, 0}, {pulse(store, ptr("b")), 12, 0, 3}, {pulse(store, ptr("")), 0, 0, 0},
		{pulse(o.store, nil), 42, 2, 3}, // no slot is there yet
	} {
		require.Equal(t, []int64{c.attempts, c.queue, c.dead}, []int64{c.of.Attempts, c.of.QueueDepth, c.of.DeadLetters})
	}
	p := pulse(store, nil)
	require.EqualValues(t, 42, *p.Events)
	require.NotNil(t, p.LagBytes)
	require.NotNil(t, p.LagSeconds)
	p = pulse(store, ptr("a"))
	require.Nil(t, p.Events)
	require.Nil(t, p.LagBytes)
	require.Nil(t, p.LagSeconds)

	o.exec(t, "SELECT outbox.sample_system($1)", slot)
	o.exec(t, "INSERT INTO outbox.system_samples SELECT sampled_at - interval '2 hours', 1, 2, 1, 1, 0, 0, NULL, 0 FROM outbox.system_samples")
	for since, want := range map[time.Duration]int{time.Hour: 1, 3 * time.Hour: 2, 1<<63 - 1: 2, -time.Hour: 0} {
		history, err := o.desk().History(t.Context(), since)
		require.NoError(t, err)
		require.NotNil(t, history)
		require.Len(t, history, want)
		if want == 2 {
			require.True(t, history[0].At.Before(history[1].At), "the oldest first")
			require.Nil(t, history[0].LagBytes)
		}
		history, err = o.desk("a").History(t.Context(), since)
		require.NoError(t, err)
		require.Empty(t, history)
	}
	text, err := json.Marshal(p)
	require.NoError(t, err)
	require.Contains(t, string(text), `"queue_depth":2`)
}

func TestAlerts(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	a, b := o.webhook(t, "a", "of-a"), o.webhook(t, "b", "of-b")
	o.exec(t, `INSERT INTO outbox.alerts (alert, subscription_id, tenant, message, raised_at, resolved_at) VALUES
		('timeouts', $1, 'a', 'late', now() - interval '1 minute', NULL), ('no_activity', $1, 'a', 'quiet', now(), NULL),
		('success_rate', $1, 'a', 'over', now(), now()), ('timeouts', $2, 'b', 'late', now(), NULL),
		('slot_lag', NULL, '', 'behind', now() - interval '1 hour', NULL)`, a.ID, b.ID)
	alerts := func(desk *admin.Desk) (found []string) {
		list, err := desk.Alerts(t.Context())
		require.NoError(t, err)
		require.NotNil(t, list)
		for _, one := range list {
			found = append(found, one.Alert+" "+one.Webhook)
			require.Equal(t, one.Alert == "slot_lag", one.WebhookID == nil)
		}
		return found
	}
	require.Equal(t, []string{"no_activity of-a", "timeouts of-a"}, alerts(o.desk("a")))
	require.Equal(t, []string{"timeouts of-b"}, alerts(o.desk("b")))
	require.Empty(t, alerts(o.desk("")), "the slot's are for principals of all tenants")
	everything := alerts(o.desk())
	require.Len(t, everything, 4)
	require.Equal(t, "slot_lag ", everything[0])

	of := func(desk *admin.Desk, id uuid.UUID) (found []string) {
		list, err := desk.WebhookAlerts(t.Context(), id)
		require.NoError(t, err)
		for _, one := range list {
			found = append(found, one.Alert)
		}
		return found
	}
	require.Equal(t, []string{"no_activity", "timeouts"}, of(o.desk(), a.ID))
	require.Equal(t, []string{"timeouts"}, of(o.desk("b"), b.ID))
	require.Empty(t, of(o.desk("a"), b.ID), "of another tenant")

	o.exec(t, `INSERT INTO outbox.alerts (alert, subscription_id, tenant, message)
		SELECT 'a' || n, $1, 'b', 'later' FROM generate_series(1, $2::int) AS n`, b.ID, admin.MaxAlerts)
	list, err := o.desk().Alerts(t.Context())
	require.NoError(t, err)
	require.Len(t, list, admin.MaxAlerts)
	require.Equal(t, "slot_lag", list[0].Alert)
	require.Equal(t, []string{"no_activity", "timeouts"}, of(o.desk(), a.ID), "however many others have")
}

// Of a database that is down every answer is an error without a kind: nobody takes it for their own mistake.
func TestADatabaseThatIsDown(t *testing.T) {
	t.Parallel()
	s := admin.New(broken{}, admin.Options{})
	d := s.For(&admin.Principal{})
	calls := map[string]func() error{
		"Delivery":      func() error { _, err := d.Delivery(t.Context(), uuid.New()); return err },
		"Redeliver":     func() error { return d.Redeliver(t.Context(), uuid.New()) },
		"DeadLetters":   func() error { _, err := d.DeadLetters(t.Context(), admin.DeadFilter{}); return err },
		"RedeliverDead": func() error { _, err := d.RedeliverDead(t.Context(), admin.DeadFilter{}, 0); return err },
		"Events":        func() error { _, err := d.Events(t.Context(), admin.EventFilter{}); return err },
		"Event":         func() error { _, _, err := d.Event(t.Context(), uuid.New()); return err },
		"EventTypes":    func() error { _, err := d.EventTypes(t.Context(), 0, ""); return err },
		"Replication":   func() error { _, err := d.Replication(t.Context()); return err },
		"Pulse":         func() error { _, err := d.Pulse(t.Context()); return err },
		"History":       func() error { _, err := d.History(t.Context(), time.Hour); return err },
		"Alerts":        func() error { _, err := d.Alerts(t.Context()); return err },
		"WebhookAlerts": func() error { _, err := d.WebhookAlerts(t.Context(), uuid.New()); return err },
		"CountWebhooks": func() error { _, err := d.CountWebhooks(t.Context()); return err },
		"Tokens":        func() error { _, err := s.Tokens(t.Context()); return err },
		"HasToken":      func() error { _, err := s.HasToken(t.Context()); return err },
		"RevokeToken":   func() error { _, err := s.RevokeToken(t.Context(), "x"); return err },
		"CreateToken": func() error {
			_, _, err := s.CreateToken(t.Context(), admin.NewToken{Name: "x", Scopes: admin.Scopes})
			return err
		},
		"CreateEventType": func() error { _, err := d.CreateEventType(t.Context(), admin.EventType{Name: "x"}); return err },
		"Enter":           func() error { _, err := admin.NewGate(s).Enter(t.Context(), "192.0.2.1:1", "x"); return err },
	}
	for name, call := range calls {
		err := call()
		require.ErrorIs(t, err, errBroken, name)
		var e *admin.Error
		require.NotErrorAs(t, err, &e, name)
	}
}
