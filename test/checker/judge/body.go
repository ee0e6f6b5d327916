package judge

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
)

// The payload formats.
const (
	envelope = "envelope"
	raw      = "raw"
)

// body is a request's body, taken apart.
type body struct {
	text   []byte
	format string
	data   any // the event's payload
	number int64
	// Of an envelope only:
	eventType, webhookID, timestamp string
	attempt                         int64
}

// parseBody takes an object with event_data and webhook_id for an envelope and everything else for the payload.
func parseBody(text []byte) (*body, error) {
	value, err := decode(text)
	if err != nil {
		return nil, fmt.Errorf("no JSON: %w", err)
	}
	fields, _ := value.(map[string]any)
	if fields["event_data"] == nil || fields["webhook_id"] == nil {
		return &body{text: text, format: raw, data: value, number: integer(fields["n"])}, nil
	}
	b := &body{text: text, format: envelope, data: fields["event_data"], attempt: integer(fields["attempt"])}
	payload, _ := b.data.(map[string]any)
	b.number = integer(payload["n"])
	b.eventType, _ = fields["event_type"].(string)
	b.webhookID, _ = fields["webhook_id"].(string)
	b.timestamp, _ = fields["timestamp"].(string)
	return b, nil
}

// decode keeps numbers as they are written.
func decode(text []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if rest := bytes.TrimSpace(text[d.InputOffset():]); len(rest) > 0 {
		return nil, fmt.Errorf("%d bytes behind it", len(rest))
	}
	return v, nil
}

// integer is -1 for everything else.
func integer(v any) int64 {
	text, _ := v.(json.Number)
	n, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// has compares the payload with numbers as they are written and the order of keys left aside. Nearly always it
// is there byte for byte, which is seen much faster.
func (b *body) has(payload []byte) bool {
	if _, rest, found := bytes.Cut(b.text, []byte(`"event_data":`)); found && b.format == envelope && bytes.HasPrefix(rest, payload) {
		return true
	}
	want, err := decode(payload)
	return err == nil && reflect.DeepEqual(b.data, want)
}

// sameBytes compares two bodies of a delivery. In an envelope the attempt's digits may differ.
func sameBytes(a, b []byte, format string) bool {
	if bytes.Equal(a, b) {
		return true
	}
	if format != envelope {
		return false
	}
	const digits = "0123456789"
	common := 0
	for common < min(len(a), len(b)) && a[common] == b[common] {
		common++
	}
	head := len(bytes.TrimRight(a[:common], digits))
	if !bytes.HasSuffix(bytes.TrimRight(a[:head], " "), []byte(`"attempt":`)) {
		return false
	}
	return bytes.Equal(bytes.TrimLeft(a[head:], digits), bytes.TrimLeft(b[head:], digits))
}

// excerpt keeps a finding readable.
func excerpt(text []byte) string {
	const limit = 300
	if len(text) <= limit {
		return string(text)
	}
	return fmt.Sprintf("%s… (%d bytes)", text[:limit], len(text))
}
