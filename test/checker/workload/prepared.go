package workload

import (
	"context"
	"fmt"

	"github.com/walhook/walhook/test/checker/history"
)

// prepared is a transaction between PREPARE TRANSACTION and its end.
type prepared struct {
	gid   string
	write history.Write
	fate  fate
	due   int // how many transactions its writer has done when it is to be finished
	// doubt is the name of the session that sent the last command about it and got no reply; empty when it is
	// known to be prepared.
	doubt string
	asked bool // to be finished: that it is not there any more means that it was
}

// prepare carries out the plan up to PREPARE TRANSACTION.
func (w *writer) prepare(ctx context.Context, p plan) error {
	x := &prepared{write: p.write(), fate: p.fate, due: w.done + p.fate.after}
	// Names belong to the whole server.
	x.gid = fmt.Sprintf("workload-%s-%d-%d", w.session.conn.Config().Database, w.number, w.done)

	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	if err := w.session.begin(within, p.apply); err != nil {
		known := w.session.explained(err)
		w.session.rollBack(within)
		w.log(x.write, history.RolledBack)
		if known {
			return nil
		}
		return err
	}
	r, err := w.session.decide(within, "PREPARE TRANSACTION '"+x.gid+"'", "PREPARE TRANSACTION")
	switch r {
	case refused:
		w.log(x.write, history.RolledBack)
		return err
	case noReply:
		x.doubt = w.session.name
	}
	w.open = append(w.open, x)
	return err
}

// finishDue finishes the prepared transactions whose time has come, and the oldest one when there are too many.
func (w *writer) finishDue(ctx context.Context) error {
	open := w.open
	w.open = nil
	for i, x := range open {
		if x.due > w.done && len(open)-i <= mostOpen {
			w.open = append(w.open, x)
			continue
		}
		finished, err := w.finishOn(ctx, x)
		if !finished {
			w.open = append(w.open, x)
		}
		if err != nil {
			w.open = append(w.open, open[i+1:]...)
			return err
		}
	}
	return nil
}

// finishOn finishes a prepared transaction on the connection that its fate names.
func (w *writer) finishOn(ctx context.Context, x *prepared) (finished bool, err error) {
	s := &w.session
	if x.fate.elsewhere {
		s = &session{url: w.o.URL}
		defer s.close()
	}
	return w.finish(ctx, s, x)
}

// finish commits or rolls back a prepared transaction and logs the outcome. When the server breaks off, it reports
// false without an error, and is to be called again.
func (w *Workload) finish(ctx context.Context, s *session, x *prepared) (finished bool, err error) {
	if err := s.open(ctx); err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	if x.doubt != "" {
		there, err := s.lookUp(ctx, x)
		if err != nil {
			if s.explained(err) {
				return false, nil
			}
			return false, err
		}
		if !there {
			w.log(x.write, x.outcome())
			return true, nil
		}
		x.doubt = ""
	}
	verb := "ROLLBACK"
	if x.fate.commit {
		verb = "COMMIT"
	}
	r, err := s.decide(ctx, verb+" PREPARED '"+x.gid+"'", verb+" PREPARED")
	if r != refused {
		x.asked = true
	}
	if r == noReply {
		x.doubt = s.name
	}
	if r == accepted {
		w.log(x.write, x.outcome())
	}
	return r == accepted, err
}

// outcome is what became of a transaction that is not prepared any more.
func (x *prepared) outcome() history.Outcome {
	if x.asked && x.fate.commit {
		return history.Committed
	}
	return history.RolledBack
}

// lookUp reports whether the transaction is prepared, once the session in doubt can no longer change it.
func (s *session) lookUp(ctx context.Context, x *prepared) (there bool, err error) {
	if err := s.endOthers(ctx, x.doubt); err != nil {
		return false, err
	}
	err = s.conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_prepared_xacts WHERE gid = $1)", x.gid).Scan(&there)
	if err != nil {
		return false, fmt.Errorf("look for the prepared transaction %s: %w", x.gid, err)
	}
	return there, nil
}
