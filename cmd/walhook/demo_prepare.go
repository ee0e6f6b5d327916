package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// prepare makes schema, slot, receivers, subscriptions, sample application and relay, in this order: the
// relay finds everything there, and every event is committed after the subscriptions.
func (d *demo) prepare(ctx context.Context) error {
	done, err := setUp(ctx, d.cfg)
	if err != nil {
		return err
	}
	for _, step := range done {
		d.say.line("%s", step)
	}
	if d.receivers, err = startDemoReceivers(ctx, d.options, d.ledger, d.say); err != nil {
		return err
	}
	if d.options.endless() {
		if d.bystanders, err = startBystanders(ctx); err != nil {
			return err
		}
	}
	if d.clinic, err = openClinic(ctx, d.cfg.DatabaseURL.Reveal(), d.options, d.receivers, d.ledger, d.say); err != nil {
		return err
	}
	if err = catalogue(ctx, d.clinic.conn, demoEventTypes()); err == nil {
		err = d.subscribe(ctx)
	}
	if err == nil {
		d.service, err = d.newService(ctx)
	}
	if err != nil {
		return errors.Join(err, d.clinic.close())
	}
	for _, line := range d.links().lines() {
		d.say.line("%s", line)
	}
	d.say.line("health and metrics: curl http://%s/readyz, /healthz, /metrics", reachable(d.service.front.address().String()))
	d.say.line("look around: SELECT * FROM outbox.replication_lag, outbox.subscription_stats, outbox.calls, outbox.queue;")
	return nil
}

// demoSubscription is a row of outbox.subscriptions. What is empty has the table's default.
type demoSubscription struct {
	tenant, name, description string
	url, secret               string
	eventTypes                []string
	filters, headers          string // JSON
	signature, format         string
	maxRetries, maxInFlight   int
	inactive                  bool
}

// insert subscribes, as anybody would in SQL, and returns the row's id and revision.
func (s *demoSubscription) insert(ctx context.Context, conn *pgx.Conn) (id uuid.UUID, revision int, err error) {
	types := s.eventTypes
	if types == nil {
		types = []string{}
	}
	err = conn.QueryRow(ctx, `INSERT INTO outbox.subscriptions (tenant, name, description, url, secret, event_types, filters, headers,
			signature, payload_format, max_retries, max_in_flight, is_active, retry_delay)
		VALUES ($1, $2, $3, $4, nullif($5, ''), $6, coalesce(nullif($7, ''), '{}')::jsonb, coalesce(nullif($8, ''), '{}')::jsonb,
			coalesce(nullif($9, ''), 'sha256'), coalesce(nullif($10, ''), 'envelope'), $11, coalesce(nullif($12, 0), 16), $13, '500 milliseconds')
		RETURNING id, revision`,
		s.tenant, s.name, s.description, s.url, s.secret, types, s.filters, s.headers,
		s.signature, s.format, s.maxRetries, s.maxInFlight, !s.inactive).Scan(&id, &revision)
	if err != nil {
		return id, revision, fmt.Errorf("subscribe %s: %w", s.name, err)
	}
	return id, revision, nil
}

// subscribe inserts the subscriptions.
func (d *demo) subscribe(ctx context.Context) (err error) {
	for _, r := range d.receivers {
		if r.subscription, r.revision, err = r.insert(ctx, d.clinic.conn); err != nil {
			return err
		}
		d.say.line("subscription %-15s event_types %-34s filters %s", r.name, fmt.Sprint(r.eventTypes), r.filters)
	}
	if d.bystanders == nil {
		return nil
	}
	for _, s := range demoBystanders(d.bystanders.base) {
		if _, _, err := s.insert(ctx, d.clinic.conn); err != nil {
			return err
		}
		d.say.line("subscription %-17s %s", s.name, s.description)
	}
	return nil
}

// newService makes the relay. When nobody asked for an address and the usual one is taken, any other will do.
func (d *demo) newService(ctx context.Context) (*service, error) {
	s, err := newService(ctx, d.cfg, d.log)
	if !errors.Is(err, syscall.EADDRINUSE) || d.explicit {
		return s, err
	}
	d.say.line("%s is taken, so another port is used", d.cfg.Listen)
	d.cfg.Listen = "127.0.0.1:0"
	return newService(ctx, d.cfg, d.log)
}
