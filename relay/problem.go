package relay

import (
	"errors"
	"fmt"
)

// ErrSetup wraps what is missing before a relay can run, or go on; the text says how to mend it. Every such error is a
// Problem.
var ErrSetup = errors.New("not set up")

// Code names a kind of problem, for programs; doctor and /readyz tell it.
type Code string

// The codes of problems.
const (
	CodeVersion            Code = "version"             // Postgres is too old
	CodeStandby            Code = "standby_server"      // this server is a standby
	CodeEncoding           Code = "encoding"            // of the database
	CodeWALLevel           Code = "wal_level"           // is not logical
	CodeReplication        Code = "replication_role"    // the role may not replicate
	CodePrivileges         Code = "privileges"          // the role lacks one
	CodeSchema             Code = "schema_missing"      // there is no schema outbox
	CodeCheckpoint         Code = "checkpoint_missing"  // the slot was never set up
	CodeOtherSlot          Code = "other_slot"          // this database is relayed through another slot
	CodeSlotMissing        Code = "slot_missing"        // the slot is gone, its checkpoint exists
	CodeSlotLost           Code = "slot_lost"           // the slot is invalidated
	CodeSlotAhead          Code = "slot_ahead"          // somebody advanced or re-created it
	CodeSlotForeign        Code = "slot_foreign"        // it is not a pgoutput slot of this database
	CodePublicationMissing Code = "publication_missing" // a publication is gone
	CodePublicationAltered Code = "publication_altered" // it keeps something from the stream
	CodeCatalogChanged     Code = "catalog_changed"     // tables or publications were re-created or altered since the checkpoint
	CodeClone              Code = "clone"               // another cluster than the checkpoint's
	CodeConnection         Code = "connection"          // Postgres cannot be reached, or broke off
	CodeHeartbeat          Code = "heartbeat"           // the stream claims to be well, and heartbeats do not come through it
)

// Problem is something that keeps the relay from running.
type Problem struct {
	Code   Code
	What   string // what is wrong, naming the object and its value
	Remedy string // what mends it: a statement, a command or a decision
	// Gap tells that events may be missing from the stream, so that a recovery from outbox.events can go on.
	Gap bool
	Err error // what Postgres said, or nil

	stuck bool // no look at the database shows it: the stream met it
}

// Error tells everything.
func (p *Problem) Error() string {
	if p.Err != nil {
		return fmt.Sprintf("%v: %s: %s: %v", ErrSetup, p.What, p.Remedy, p.Err)
	}
	return fmt.Sprintf("%v: %s: %s", ErrSetup, p.What, p.Remedy)
}

// Unwrap makes every Problem an ErrSetup.
func (p *Problem) Unwrap() []error {
	if p.Err != nil {
		return []error{ErrSetup, p.Err}
	}
	return []error{ErrSetup}
}

// problemOf finds the Problem in err, or nil.
func problemOf(err error) *Problem {
	var p *Problem
	if errors.As(err, &p) {
		return p
	}
	return nil
}

// principal is the problem to name when there are several: one that a recovery cannot fill before those that it can.
func principal(all []*Problem) *Problem {
	for _, p := range all {
		if !p.Gap {
			return p
		}
	}
	if len(all) > 0 {
		return all[0]
	}
	return nil
}

// errOf makes an error of a Problem that may be nil.
func errOf(p *Problem) error {
	if p == nil {
		return nil
	}
	return p
}

// waits reports whether a relay with this problem may serve its queue until somebody mends it: everything but the
// stream is as it should be.
func (p *Problem) waits() bool {
	switch p.Code {
	case CodeSlotMissing, CodeSlotLost, CodeSlotAhead, CodeSlotForeign, CodePublicationMissing, CodePublicationAltered, CodeCatalogChanged,
		CodeReplication, CodeWALLevel:
		return true
	}
	return false
}

// lasting reports whether no waiting mends the problem, so that a relay need not even start.
func (p *Problem) lasting() bool {
	switch p.Code {
	case CodeVersion, CodeEncoding, CodeWALLevel, CodeReplication, CodeSchema, CodeCheckpoint, CodeOtherSlot, CodeClone:
		return true
	}
	return false
}
