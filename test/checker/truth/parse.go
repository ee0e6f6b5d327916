package truth

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/walhook/walhook/test/checker/history"
)

// errOutput marks output of the server that the package doesn't understand. To read it again would not help.
var errOutput = errors.New("unknown output of test_decoding")

// transaction puts together what comes between BEGIN and COMMIT.
type transaction struct {
	open bool
	tx   history.Tx
}

// add takes the next line and reports whether it completes tx, all but the position.
func (t *transaction) add(text string) (complete bool, err error) {
	l, err := parseLine(text)
	if err != nil {
		return false, err
	}
	switch {
	case l.kind == begin && !t.open:
		*t = transaction{open: true, tx: history.Tx{XID: l.xid}}
	case l.kind == commit && t.open && l.xid == t.tx.XID:
		t.open = false
		t.tx.CommittedAt = l.at
		return true, nil
	case l.kind == item && t.open:
		t.tx.Items = append(t.tx.Items, l.item)
	case l.kind != foreign:
		return false, fmt.Errorf("%w: %.200q does not follow from what came before (transaction %d, open: %t)",
			errOutput, text, t.tx.XID, t.open)
	}
	return false, nil
}

// kind is what a line is.
type kind int

const (
	foreign kind = iota // nothing of the outbox
	begin
	commit
	item
)

// line is one line of test_decoding's output. Lines are whole messages: a value may contain line breaks.
type line struct {
	kind kind
	xid  uint32    // of begin and commit
	at   time.Time // of commit
	item history.Item
}

// parseLine reads what contrib/test_decoding/test_decoding.c writes.
func parseLine(text string) (line, error) {
	l, err := parseAny(text)
	if err != nil {
		return line{}, fmt.Errorf("%w: %w: %.200q", errOutput, err, text)
	}
	return l, nil
}

func parseAny(text string) (line, error) {
	word, rest, _ := strings.Cut(text, " ")
	switch word {
	case "BEGIN":
		xid, err := strconv.ParseUint(rest, 10, 32)
		return line{kind: begin, xid: uint32(xid)}, err
	case "COMMIT":
		return parseCommit(rest)
	case "table":
		return parseTable(rest)
	case "message:":
		return parseMessage(rest)
	}
	return line{}, fmt.Errorf("unknown word %.20q", word)
}

// parseCommit reads "1234 (at 2026-11-22 10:11:12.123456+00)".
func parseCommit(rest string) (line, error) {
	number, stamp, _ := strings.Cut(rest, " ")
	xid, err := strconv.ParseUint(number, 10, 32)
	if err != nil {
		return line{}, err
	}
	at, err := time.Parse("(at "+timestamptz+")", stamp)
	return line{kind: commit, xid: uint32(xid), at: at.UTC()}, err
}

// parseMessage reads "transactional: 1 prefix: outbox, sz: 12 content:…". An event is only what commits with its
// transaction.
func parseMessage(rest string) (line, error) {
	rest, ours := strings.CutPrefix(rest, "transactional: 1 prefix: outbox, sz: ")
	if !ours {
		return line{}, nil
	}
	size, content, _ := strings.Cut(rest, " content:")
	if size != strconv.Itoa(len(content)) {
		return line{}, fmt.Errorf("the content has %d bytes, not %.20q", len(content), size)
	}
	var e struct {
		ID        *uuid.UUID
		Type      *string
		Tenant    *string
		Key       *string
		Payload   json.RawMessage
		CreatedAt time.Time `json:"created_at"`
	}
	if err := json.Unmarshal([]byte(content), &e); err != nil {
		return line{}, fmt.Errorf("read the emitted event: %w", err)
	}
	if e.ID == nil || e.Type == nil || e.Tenant == nil || e.Payload == nil {
		return line{}, errors.New("the emitted event lacks id, type, tenant or payload")
	}
	event := &history.Event{ID: *e.ID, Type: *e.Type, Tenant: *e.Tenant, Payload: e.Payload, Emitted: true, CreatedAt: e.CreatedAt}
	if e.Key != nil {
		event.Key = *e.Key
	}
	return line{kind: item, item: history.Item{Event: event}}, nil
}

// parseTable reads "outbox.events_default: INSERT: id[uuid]:'…' …". A partitioned table's rows are told of under the
// name of their partition.
func parseTable(rest string) (line, error) {
	s := scanner{rest}
	schema, table, err := s.relation()
	switch {
	case err != nil:
		return line{}, err
	case schema != "outbox":
		return line{}, nil
	case table == "events" || strings.HasPrefix(table, "events_"):
		return parseEvent(s)
	case table == "subscriptions":
		return parseSubscription(s)
	}
	return line{}, nil
}

// parseEvent reads an insert. Events are insert only: whatever else happens to their rows is of no concern.
func parseEvent(s scanner) (line, error) {
	if !s.skip(": INSERT:") {
		return line{}, nil
	}
	r, err := s.row()
	if err != nil {
		return line{}, err
	}
	e := &history.Event{
		ID:        r.uuid("id"),
		Type:      r.text("type"),
		Tenant:    r.text("tenant"),
		Key:       r.nullable("key"),
		Payload:   json.RawMessage(r.text("payload")),
		CreatedAt: r.moment("created_at"),
	}
	return line{kind: item, item: history.Item{Event: e}}, r.err
}

func parseSubscription(s scanner) (line, error) {
	deleted := s.skip(": DELETE:")
	if !deleted && !s.skip(": INSERT:") && !s.skip(": UPDATE:") {
		return line{}, errors.New("unknown change of a subscription")
	}
	r, err := s.row()
	if err != nil {
		return line{}, err
	}
	if deleted {
		id := r.uuid("id")
		return line{kind: item, item: history.Item{Deleted: &id}}, r.err
	}
	sub := &history.Subscription{
		ID:              r.uuid("id"),
		Tenant:          r.text("tenant"),
		URL:             r.text("url"),
		EventTypes:      r.array("event_types"),
		Filters:         json.RawMessage(r.text("filters")),
		Secret:          r.nullable("secret"),
		Format:          r.text("payload_format"),
		Signature:       r.text("signature"),
		PreviousSecret:  r.nullable("previous_secret"),
		PreviousExpires: r.moment("previous_secret_expires_at"),
		BatchSize:       r.int("batch_size"),
		Ordering:        r.text("ordering"),
		MaxRetries:      r.int("max_retries"),
		RetryDelayMS:    r.milliseconds("retry_delay"),
		TimeoutMS:       r.milliseconds("timeout"),
		Active:          r.bool("is_active"),
		ChangedAt:       r.moment("updated_at"),
	}
	return line{kind: item, item: history.Item{Subscription: sub}}, r.err
}
