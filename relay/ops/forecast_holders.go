package ops

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Transaction is one that has written and is still open: in a session, or prepared. The slot keeps WAL from the
// beginning of the oldest of them on.
type Transaction struct {
	GID         string    `db:"gid"` // of a prepared one; empty for a session's
	PID         int32     `db:"pid"`
	User        string    `db:"user"`
	Application string    `db:"application"`
	State       string    `db:"state"`
	Database    string    `db:"database"`
	Since       time.Time `db:"since"`
}

// OtherSlot is another replication slot that keeps more WAL than ours.
type OtherSlot struct {
	Name     string     `db:"name"`
	Type     string     `db:"type"`
	Active   bool       `db:"active"`
	Retained int64      `db:"retained"` // bytes
	Since    *time.Time `db:"since"`    // when somebody read it last, if it is known
}

// StandbySlot is a name in synchronized_standby_slots.
type StandbySlot struct {
	Name   string `db:"name"`
	Exists bool   `db:"exists"`
	Active bool   `db:"active"`
	Behind bool   `db:"behind"` // what our slot has confirmed has not arrived there
}

// HolderCode names a kind of what holds WAL back.
type HolderCode string

// The codes.
const (
	HolderNoRelay     HolderCode = "no_relay"             // nobody reads the slot
	HolderBehind      HolderCode = "relay_behind"         // its relay has much to record
	HolderTransaction HolderCode = "transaction"          // an open transaction
	HolderPrepared    HolderCode = "prepared_transaction" // PREPARE TRANSACTION without an end
	HolderOtherSlot   HolderCode = "other_slot"           // keeps more than ours
	HolderStandby     HolderCode = "standby_list"         // synchronized_standby_slots
)

// Holder is something that holds WAL back. Bytes is how much, as far as it is known, and Since when it began.
type Holder struct {
	Code  HolderCode `json:"code"`
	Text  string     `json:"text"`
	Bytes *int64     `json:"bytes,omitempty"`
	Since *time.Time `json:"since,omitempty"`
}

// farBehind is a WAL segment as Postgres makes them: less says nothing.
const farBehind = 16 << 20

// holders names what holds WAL back, the most bytes first.
func (l *WALLook) holders() []Holder {
	all := []Holder{}
	lag := difference(l.WAL, l.Confirmed)
	switch {
	case !l.Exists || l.WALStatus == "lost":
	case !l.Active:
		all = append(all, Holder{HolderNoRelay, "no relay reads the slot", difference(l.WAL, l.Restart), l.InactiveSince})
	case l.StandbyWait:
	case lag != nil && *lag >= farBehind:
		all = append(all, Holder{Code: HolderBehind, Text: "the relay reads the slot, but has not recorded all that was written", Bytes: lag})
	}
	all = append(all, l.standbyHolders(lag)...)
	all = append(all, l.transactionHolders()...)
	for _, s := range l.Slots {
		text := fmt.Sprintf("%s slot %s keeps more WAL than ours, and nobody reads it", s.Type, s.Name)
		if s.Active {
			text = fmt.Sprintf("%s slot %s keeps more WAL than ours: who reads it is behind", s.Type, s.Name)
		}
		all = append(all, Holder{HolderOtherSlot, text, &s.Retained, s.Since})
	}
	slices.SortStableFunc(all, func(a, b Holder) int { return cmp.Compare(orNone(b.Bytes), orNone(a.Bytes)) })
	return all
}

// transactionHolders are those that are open: the slot's restart position stays behind the confirmed one for them.
func (l *WALLook) transactionHolders() []Holder {
	if l.Restart == nil || l.Confirmed == nil || *l.Restart >= *l.Confirmed {
		return nil
	}
	held := difference(*l.Confirmed, l.Restart)
	all := make([]Holder, 0, len(l.Transactions))
	for _, t := range l.Transactions {
		h := Holder{HolderTransaction, fmt.Sprintf("open transaction of user %q, application %q, %s (pid %d)", t.User, t.Application, t.State, t.PID), held, &t.Since}
		if t.GID != "" {
			h.Code, h.Text = HolderPrepared, fmt.Sprintf("prepared transaction %q of user %q in database %q", t.GID, t.User, t.Database)
		}
		all = append(all, h)
	}
	return all
}

// standbyHolders are the slots of standbys that delivery waits for: nothing is delivered that they don't have.
func (l *WALLook) standbyHolders(lag *int64) []Holder {
	var all []Holder
	for _, s := range l.Standbys {
		what := ""
		switch {
		case !s.Exists:
			what = "does not exist"
		case !s.Active:
			what = "no standby reads"
		case l.StandbyWait && s.Behind:
			what = "is behind"
		default:
			continue
		}
		all = append(all, Holder{Code: HolderStandby, Bytes: lag,
			Text: fmt.Sprintf("synchronized_standby_slots names slot %s, which %s: only what it has is delivered", s.Name, what)})
	}
	return all
}

// difference is how far a position is behind.
func difference(from int64, to *int64) *int64 {
	if to == nil {
		return nil
	}
	d := from - *to
	return &d
}

func orNone(n *int64) int64 {
	if n == nil {
		return -1
	}
	return *n
}
