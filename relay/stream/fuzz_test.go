package stream_test

import (
	"testing"

	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/stream"
)

// split makes messages of foreign bytes: each begins with its length in two bytes.
func split(b []byte) [][]byte {
	var messages [][]byte
	for len(b) >= 2 {
		n := min(int(b[0])<<8|int(b[1]), len(b)-2)
		messages = append(messages, b[2:2+n])
		b = b[2+n:]
	}
	return messages
}

func joined(messages ...[]byte) []byte {
	var b wire
	for _, m := range messages {
		b = b.u16(len(m)).raw(m)
	}
	return b
}

// decodeAll decodes until the first error, as a stream that breaks there.
func decodeAll(messages [][]byte, skip delivery.Position) []delivery.Item {
	d := stream.NewDecoder(tables, skip)
	var items []delivery.Item
	for _, m := range messages {
		var err error
		if items, err = d.Decode(items, m); err != nil {
			break
		}
	}
	return items
}

// Whatever comes, the decoder does not panic, an item is exactly one thing, and a stream that is read again
// from any of its positions goes on behind it.
func FuzzDecode(f *testing.F) {
	filters := jsonb(`{"department": "cardiology"}`)
	f.Add(joined(append(announced,
		begin(0x100, committedAt),
		insert(eventsOID, eventRow(one, "patient.created", `{"n": 1}`)),
		insert(subscriptionsOID, subscriptionRow(two, 7, filters, "patient.*", "payment.made")),
		update(subscriptionsOID, subscriptionRow(two, 7, filters), subscriptionRow(two, 8, unchanged{})),
		remove(subscriptionsOID, subscriptionRow(two, 8, filters)),
		logical(true, "outbox", `{"id": "`+three.String()+`", "type": "y", "payload": {"s": "\ud83d\ude00"}, "headers": {"a": "b"}}`),
		commit(0x100, 0x130, committedAt))...))
	f.Add(joined(
		announce(eventsOID, "events", append([]columnType{{"added", oidInt4}}, eventColumns...)),
		begin(0x130, committedAt),
		insert(eventsOID, append(wire{}.u16(10).u8('n'), eventRow(one, "x", "1")[2:]...)),
		commit(0x130, 0x160, committedAt)))
	f.Add(joined(wire{'O'}.u64(1).str("elsewhere"), wire{'Y'}.u32(99).str("public").str("mood"), wire{'T'}.u32(1).u8(0).u32(otherOID), nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		messages := split(b)
		items := decodeAll(messages, delivery.Position{})
		ascending := true
		for i, item := range items {
			if item.Event != nil && item.Change != nil {
				t.Fatalf("item %d is an event and a change", i)
			}
			if end := item.Position.Index == 0; end != (item.Event == nil && item.Change == nil) {
				t.Fatalf("item %d at %v is %s", i, item.Position, line(item))
			}
			ascending = ascending && (i == 0 || item.Position.After(items[i-1].Position)) && item.Position.After(delivery.Position{})
		}
		if !ascending {
			return // no server orders positions so; each message was read nevertheless
		}
		for i, item := range items {
			rest := decodeAll(messages, item.Position)
			if len(rest) < len(items)-i-1 {
				t.Fatalf("behind %v came %d items, not %d", item.Position, len(rest), len(items)-i-1)
			}
			for j := range items[i+1:] {
				if got, want := line(rest[j]), line(items[i+1+j]); got != want {
					t.Fatalf("behind %v came %s, not %s", item.Position, got, want)
				}
			}
		}
	})
}
