package judge_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/checker/history"
	"github.com/walhook/walhook/test/checker/judge"
)

var began = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// at is a moment of the episode, in milliseconds from its beginning.
func at(ms int) time.Time { return began.Add(time.Duration(ms) * time.Millisecond) }

// id makes readable ids that are the same in every run.
func id(kind byte, n int) uuid.UUID {
	var u uuid.UUID
	u[0] = kind
	binary.BigEndian.PutUint64(u[8:], uint64(n))
	return u
}

// scene builds a history step by step: each transaction has an LSN of its own, each request follows the last.
type scene struct {
	h        history.History
	expected []judge.Expected
	lsn      history.LSN
}

func newScene() *scene {
	return &scene{lsn: 0x1000, h: history.History{Seed: 7, Episode: 1, Began: began, SpillAfterMS: 300, HealedAt: at(50_000), DrainedAt: at(59_000), StoppedAt: at(60_000)}}
}

func (s *scene) tx(ms int, items ...history.Item) *history.Tx {
	s.lsn += 0x100
	s.h.Txs = append(s.h.Txs, history.Tx{LSN: s.lsn, XID: uint32(s.lsn), CommittedAt: at(ms), SeenAt: at(ms + 1), Items: items})
	return &s.h.Txs[len(s.h.Txs)-1]
}

// subscribe commits a subscription that wants everything, changed as told, or a new version of it.
func (s *scene) subscribe(ms, n int, change ...func(*history.Subscription)) uuid.UUID {
	row := history.Subscription{ID: id(2, n), URL: "http://127.0.0.1:1/s", Filters: json.RawMessage(`{}`), Secret: "first", Signature: "sha256", Format: "envelope", BatchSize: 1, Ordering: "none",
		MaxRetries: 3, RetryDelayMS: 500, TimeoutMS: 2000, Active: true}
	for _, f := range change {
		f(&row)
	}
	s.tx(ms, history.Item{Subscription: &row})
	return row.ID
}

func (s *scene) unsubscribe(ms int, subscription uuid.UUID) {
	s.tx(ms, history.Item{Deleted: &subscription})
}

// event commits an event that the subscriptions expect, and logs the write.
func (s *scene) event(ms, n int, key string, to ...uuid.UUID) *history.Event {
	e := &history.Event{ID: id(1, n), Type: "visit.started", Key: key, CreatedAt: at(ms), Payload: json.RawMessage(fmt.Sprintf(`{"n":%d,"amount":12345678901234567890.000,"note":"a\"b"}`, n))}
	tx := s.tx(ms, history.Item{Event: e})
	for _, u := range to {
		s.expected = append(s.expected, judge.Expected{LSN: tx.LSN, Event: e, Subscription: u})
	}
	s.write(history.Committed, int64(n))
	return e
}

func (s *scene) write(outcome history.Outcome, kept ...int64) *history.Write {
	s.h.Writes = append(s.h.Writes, history.Write{At: at(0), Outcome: outcome, Kept: kept})
	return &s.h.Writes[len(s.h.Writes)-1]
}

func deliveryID(event int, subscription uuid.UUID) uuid.UUID {
	return id(3, event*100+int(subscription[15]))
}

// request is answered with 200 after 10 ms and well made, unless it is changed afterwards.
func (s *scene) request(ms, event, attempt int, to uuid.UUID) *history.Receipt {
	e := s.find(event)
	body := fmt.Sprintf(`{"event_type":"visit.started","event_data":%s,"webhook_id":"%s","timestamp":"%s","attempt":%d}`,
		e.Event.Payload, deliveryID(event, to), s.committed(e.LSN).Format("2006-01-02T15:04:05.000000Z07:00"), attempt)
	s.h.Receipts = append(s.h.Receipts, history.Receipt{Seq: int64(len(s.h.Receipts) + 1), Subscription: to, Delivery: deliveryID(event, to).String(),
		Type: e.Event.Type, Attempt: attempt, ArrivedAt: at(ms), AnsweredAt: at(ms + 10), Behaviour: "ok", Status: 200})
	r := &s.h.Receipts[len(s.h.Receipts)-1]
	withBody(r, body)
	return r
}

func (s *scene) find(event int) judge.Expected {
	for _, e := range s.expected {
		if e.Event.Number() == int64(event) {
			return e
		}
	}
	panic(fmt.Sprintf("event %d is not expected", event))
}

func (s *scene) committed(lsn history.LSN) time.Time {
	for _, tx := range s.h.Txs {
		if tx.LSN == lsn {
			return tx.CommittedAt
		}
	}
	panic("no such transaction")
}

// withBody gives the request another body, signed with the first secret.
func withBody(r *history.Receipt, body string) {
	r.Body = []byte(body)
	r.Path = "/s"
	r.Signature = signed(signature("first", body))
}

// signed is what the headers say of the signature; nothing when it is empty.
func signed(value string) map[string]string {
	if value == "" {
		return nil
	}
	return map[string]string{"X-Webhook-Signature": value}
}

func signature(secret, body string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(body))
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

// row is a delivery as a table holds it, after all its attempts.
func row(event int, to uuid.UUID) history.Row {
	return history.Row{ID: deliveryID(event, to), Subscription: to, Event: id(1, event), Attempts: 4}
}

// rows is the delivery of event 1.
func rows(to uuid.UUID) []history.Row { return []history.Row{row(1, to)} }

func failed(r *history.Receipt) { r.Behaviour, r.Status = "error", 500 }

func (s *scene) fault(class string, beginMS, endMS, inFlight int) *history.Fault {
	s.h.Faults = append(s.h.Faults, history.Fault{Class: class, Begin: at(beginMS), End: at(endMS), InFlight: inFlight})
	return &s.h.Faults[len(s.h.Faults)-1]
}

// snapshot is one in which the slot and the checkpoint stand behind everything committed so far.
func (s *scene) snapshot(ms int) *history.Snapshot {
	s.h.Snapshots = append(s.h.Snapshots, history.Snapshot{At: at(ms), Confirmed: s.lsn, Slot: s.lsn})
	return &s.h.Snapshots[len(s.h.Snapshots)-1]
}

func (s *scene) judge() judge.Verdict { return judge.Judge(&s.h, s.expected) }

// clean requires that nothing is wrong.
func (s *scene) clean(t *testing.T) judge.Verdict {
	t.Helper()
	v := s.judge()
	require.Empty(t, v.Findings)
	require.True(t, v.Clean())
	require.Equal(t, v.Deliveries, v.Delivered+v.Dead+v.Cancelled+v.Waiting+v.Otherwise+v.GivenUp+v.Lost)
	return v
}

// one requires exactly one finding, of a kind and with a text in it.
func (s *scene) one(t *testing.T, kind history.Kind, text string) judge.Verdict {
	t.Helper()
	v := s.judge()
	require.Len(t, v.Findings, 1, "%v", v.Findings)
	require.Equal(t, kind, v.Findings[0].Kind, v.Findings[0].Detail)
	require.Contains(t, v.Findings[0].Detail, text)
	require.Equal(t, map[history.Kind]int{kind: 1}, v.Counts)
	return v
}
