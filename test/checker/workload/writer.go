package workload

import (
	"context"
	"fmt"
	"math/rand/v2"

	"github.com/jackc/pgx/v5"

	"github.com/walhook/walhook/test/checker/history"
)

// mostOpen is how many prepared transactions a writer leaves open while it works on: a server allows few.
const mostOpen = 2

// writer is an application with one connection.
type writer struct {
	*Workload
	session session
	random  *rand.Rand
	number  int
	done    int         // transactions
	open    []*prepared // not yet known to be finished
}

// write is a writer's life: so many transactions, or until ctx ends.
func (w *Workload) write(ctx context.Context, number, transactions int) error {
	wr := &writer{Workload: w, session: session{url: w.o.URL}, random: w.stream(uint64(number)), number: number}
	defer wr.leave()
	for wr.done < transactions {
		p := decide(wr.random)
		if w.limiter.WaitN(ctx, min(p.rows(), mostRows)) != nil { // ctx ends before the time comes
			return nil
		}
		if err := wr.next(ctx, p); err != nil {
			return unlessOver(ctx, err)
		}
	}
	return nil
}

// leave hands what is open to Settle.
func (w *writer) leave() {
	w.session.close()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.Workload.open = append(w.Workload.open, w.open...)
}

// next carries out the plan and finishes the prepared transactions that are due.
func (w *writer) next(ctx context.Context, p plan) error {
	if err := w.session.open(ctx); err != nil {
		return err
	}
	w.done++
	p.number(func() int64 { return w.numbers.Add(1) })
	var err error
	if p.ending == prepare {
		err = w.prepare(ctx, p)
	} else {
		_, err = w.transact(ctx, &w.session, p.ending, p.write(), p.apply)
	}
	if err != nil {
		return err
	}
	return w.finishDue(ctx)
}

// work is what a transaction does between its BEGIN and its end.
type work func(context.Context, *pgx.Conn) error

// transact carries out a transaction, on a session that is open, to the end that is meant for it, and logs the
// outcome. The error is one that no fault explains.
func (w *Workload) transact(ctx context.Context, s *session, end ending, write history.Write, do work) (history.Outcome, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	outcome := history.RolledBack
	err := s.begin(ctx, do)
	switch {
	case err != nil && s.explained(err):
		s.rollBack(ctx)
		err = nil
	case err != nil || end == rollBack:
		s.rollBack(ctx)
	default:
		var r reply
		r, err = s.decide(ctx, "COMMIT", "COMMIT")
		outcome = r.outcome()
	}
	w.log(write, outcome)
	return outcome, err
}

// begin does everything of a transaction but its end.
func (s *session) begin(ctx context.Context, do work) error {
	if _, err := s.conn.Exec(ctx, "BEGIN"); err != nil {
		return err
	}
	return do(ctx, s.conn)
}

// apply carries out the steps.
func (p *plan) apply(ctx context.Context, conn *pgx.Conn) error {
	for _, s := range p.steps {
		if err := s.apply(ctx, conn); err != nil {
			return err
		}
	}
	return nil
}

func (s *step) apply(ctx context.Context, conn *pgx.Conn) error {
	switch s.kind {
	case publish:
		return s.publish(ctx, conn)
	case alter:
		_, err := conn.Exec(ctx, s.change.sql, s.change.args...)
		if err != nil {
			return fmt.Errorf("change a subscription: %w", err)
		}
		return nil
	}
	verb := map[kind]string{savepoint: "SAVEPOINT", release: "RELEASE", rollBackTo: "ROLLBACK TO"}[s.kind]
	if _, err := conn.Exec(ctx, fmt.Sprintf("%s s%d", verb, s.depth)); err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	return nil
}

// publish writes the step's events.
func (s *step) publish(ctx context.Context, conn *pgx.Conn) error {
	var types, payloads, tenants []string
	var keys []*string
	for _, e := range s.events {
		text, err := e.json()
		if err != nil {
			return err
		}
		types, payloads = append(types, e.typ), append(payloads, text)
		keys, tenants = append(keys, e.key), append(tenants, e.tenant)
	}
	var err error
	switch s.way {
	case byInsert:
		_, err = conn.Exec(ctx, `INSERT INTO outbox.events (type, payload, key, tenant)
			SELECT e.type, e.payload::jsonb, e.key, e.tenant
			FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) WITH ORDINALITY AS e(type, payload, key, tenant, i)
			ORDER BY i`, types, payloads, keys, tenants)
	case byCopy:
		_, err = conn.CopyFrom(ctx, pgx.Identifier{"outbox", "events"}, []string{"type", "payload", "key", "tenant"},
			pgx.CopyFromSlice(len(types), func(i int) ([]any, error) {
				return []any{types[i], payloads[i], keys[i], tenants[i]}, nil
			}))
	default:
		call := map[way]string{byPublish: "outbox.publish", byEmit: "outbox.emit"}[s.way]
		for i := range types {
			if _, err = conn.Exec(ctx, "SELECT "+call+"($1, $2::text::jsonb, $3, $4)", types[i], payloads[i], keys[i], tenants[i]); err != nil {
				break
			}
		}
	}
	if err != nil {
		return fmt.Errorf("publish %d events: %w", len(types), err)
	}
	return nil
}
