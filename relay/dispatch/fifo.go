package dispatch

import "github.com/walhook/walhook/relay/delivery"

// ring is a queue whose head is taken in constant time. The zero value is empty.
type ring[T any] struct {
	items []T
	head  int
}

func (r *ring[T]) len() int { return len(r.items) - r.head }

// push appends an item. What was popped makes room once it is half of the whole.
func (r *ring[T]) push(item T) {
	if r.head >= 64 && r.head*2 >= len(r.items) {
		n := copy(r.items, r.items[r.head:])
		clear(r.items[n:])
		r.items, r.head = r.items[:n], 0
	}
	r.items = append(r.items, item)
}

// pop takes the first item; there must be one.
func (r *ring[T]) pop() T {
	var none T
	item := r.items[r.head]
	r.items[r.head] = none
	if r.head++; r.head == len(r.items) {
		r.items, r.head = r.items[:0], 0
	}
	return item
}

// waiting are the items, in their order. The slice is the ring's.
func (r *ring[T]) waiting() []T { return r.items[r.head:] }

// fifo is a queue of deliveries. A withdrawn one leaves a nil behind that pop passes over.
type fifo struct {
	ring  ring[*delivery.Delivery]
	holes int
}

func (f *fifo) len() int { return f.ring.len() - f.holes }

func (f *fifo) push(d *delivery.Delivery) { f.ring.push(d) }

// pop takes the first delivery, nil if there is none.
func (f *fifo) pop() *delivery.Delivery {
	for f.ring.len() > 0 {
		if d := f.ring.pop(); d != nil {
			return d
		}
		f.holes--
	}
	return nil
}

// peek returns what pop would, and leaves it there.
func (f *fifo) peek() *delivery.Delivery {
	for _, d := range f.ring.waiting() {
		if d != nil {
			return d
		}
	}
	return nil
}

// remove takes d out, wherever it stands, and reports whether it was there.
func (f *fifo) remove(d *delivery.Delivery) bool {
	for i, other := range f.ring.waiting() {
		if other != d {
			continue
		}
		if i == 0 {
			f.ring.pop() // the usual case: the oldest is withdrawn first
		} else {
			f.ring.waiting()[i] = nil
			f.holes++
		}
		return true
	}
	return false
}

// extract takes out what matches, in order.
func (f *fifo) extract(match func(*delivery.Delivery) bool) []*delivery.Delivery {
	var out []*delivery.Delivery
	for i, d := range f.ring.waiting() {
		if d != nil && match(d) {
			out = append(out, d)
			f.ring.waiting()[i] = nil
			f.holes++
		}
	}
	return out
}

// drain takes everything out.
func (f *fifo) drain() []*delivery.Delivery {
	var all []*delivery.Delivery
	for d := f.pop(); d != nil; d = f.pop() {
		all = append(all, d)
	}
	return all
}
