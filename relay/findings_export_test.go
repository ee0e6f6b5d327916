package relay

import "github.com/google/uuid"

// Findings are what is to be written down of subscriptions.
type Findings struct{ f findings }

// Finding is one of them.
type Finding struct{ f finding }

// ID is the subscription's.
func (f Finding) ID() uuid.UUID { return f.f.id }

// Add reports whether it is news that a revision is invalid.
func (f *Findings) Add(id uuid.UUID, revision int64) bool {
	return f.f.add(finding{id: id, revision: revision, reason: "a reason", streamed: true})
}

// Forget drops a subscription.
func (f *Findings) Forget(id uuid.UUID) { f.f.forget(id) }

// Take takes all that are to be written down.
func (f *Findings) Take() (all []Finding) {
	for _, one := range f.f.take() {
		all = append(all, Finding{one})
	}
	return all
}

// Back returns what could not be written down.
func (f *Findings) Back(all []Finding) {
	rest := make([]finding, len(all))
	for i := range all {
		rest[i] = all[i].f
	}
	f.f.back(rest)
}
