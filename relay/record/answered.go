package record

import (
	"slices"

	"github.com/walhook/walhook/relay/delivery"
)

// Claiming notes that a claim begins, which knows of everything that was recorded before.
func (w *Window) Claiming() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range w.durable {
		delete(w.answered, id)
	}
	w.durable = w.durable[:0]
}

// Open leaves out those of the claimed deliveries whose outcome is here. Where a record transaction takes longer
// than a lease, as behind a link that hangs, the queue hands out again what has ended already: its row still bore our
// lease, so what is recorded after that settles it.
func (w *Window) Open(claimed []*delivery.Delivery) []*delivery.Delivery {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.DeleteFunc(claimed, func(d *delivery.Delivery) bool {
		_, answered := w.answered[d.ID]
		return answered && d.Again
	})
}
