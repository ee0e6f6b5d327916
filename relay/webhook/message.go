package webhook

import (
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/walhook/walhook/relay/delivery"
)

// message is the content of one request and what its headers say of it.
type message struct {
	id          string // of the delivery, or of the batch
	event       string // the type that all its events have, or mixedTypes; fit for a header
	attempt     int    // from 1; the highest in a batch
	at          time.Time
	body        []byte
	contentType []string
	elements    int                // of the array that the body is; 0 when it is none
	only        *delivery.Delivery // what a request of one carries; nil with several
}

// mixedTypes is the X-Webhook-Event of a batch whose events differ in type.
const mixedTypes = "batch"

// message makes the request that a batch becomes at that time. It is an array when it has several elements,
// and always where the settings ask for batches, so that a receiver sees one shape.
func (e *endpoint) message(batch []*delivery.Delivery, at time.Time) message {
	m := message{event: headerText(commonType(batch)), attempt: highestAttempt(batch), at: at}
	if len(batch) == 1 {
		m.only = batch[0]
		m.id = idText(batch[0].ID)
	} else {
		m.id = idText(batchID(batch))
	}
	if len(batch) > 1 || e.from.Batches() {
		m.elements = len(batch)
		m.contentType, m.body = e.format.batchType, e.format.array(batch)
		return m
	}
	m.contentType, m.body = e.format.contentType, e.format.body(m.only)
	return m
}

func batchID(batch []*delivery.Delivery) uuid.UUID {
	ids := make([]uuid.UUID, len(batch))
	for i, d := range batch {
		ids[i] = d.ID
	}
	return delivery.BatchID(ids)
}

func commonType(batch []*delivery.Delivery) string {
	common := batch[0].Event.Type
	for _, d := range batch[1:] {
		if d.Event.Type != common {
			return mixedTypes
		}
	}
	return common
}

func highestAttempt(batch []*delivery.Delivery) int {
	highest := 0
	for _, d := range batch {
		highest = max(highest, d.Attempts+1)
	}
	return highest
}

// expand appends a scheme's pattern to dst.
func (m *message) expand(dst []byte, pattern string) []byte {
	for i := 0; i < len(pattern); i++ {
		if pattern[i] != '%' {
			dst = append(dst, pattern[i])
			continue
		}
		i++
		switch pattern[i] {
		case 'i':
			dst = append(dst, m.id...)
		case 't':
			dst = strconv.AppendInt(dst, m.at.Unix(), 10)
		case 'e':
			dst = append(dst, m.event...)
		}
	}
	return dst
}
