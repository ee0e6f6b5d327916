package outbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// document is JSON text that jsonb takes, with the number of bytes that jsonb prints for it.
type document struct {
	text json.RawMessage
	size int
}

// empty is the columns' default.
var empty = document{text: json.RawMessage("{}"), size: 2}

// encodePayload makes the payload's JSON text and holds it to what jsonb takes.
func encodePayload(payload any) (document, error) {
	var text []byte
	switch p := payload.(type) {
	case nil:
		return empty, nil
	case json.RawMessage:
		text = p
	case []byte:
		text = p
	default:
		var err error
		if text, err = json.Marshal(p); err != nil {
			return document{}, fmt.Errorf("payload of type %T has no JSON form: %w: change the type or pass json.RawMessage", p, err)
		}
	}
	return parse("payload", text)
}

// encodeHeaders makes the headers' JSON text. json.Marshal would replace invalid UTF-8 silently, so names
// and values are looked at first.
func encodeHeaders(headers map[string]string) (document, error) {
	if len(headers) == 0 {
		return empty, nil
	}
	for name, value := range headers {
		err := errors.Join(
			checkEncoding("header name "+quote(name), name),
			checkEncoding("the value of header "+quote(name), value),
		)
		if err != nil {
			return document{}, err
		}
	}
	text, err := json.Marshal(headers)
	if err != nil {
		return document{}, fmt.Errorf("encode headers: %w", err)
	}
	return parse("headers", text)
}

// parse checks JSON text. What is valid JSON may still be nothing for jsonb, and there the refusal would
// cost the application its whole transaction.
func parse(what string, text []byte) (document, error) {
	if len(text) == 0 {
		return document{}, fmt.Errorf("%s is empty, which is no JSON: pass nil for {} or json.RawMessage(\"null\") for null", what)
	}
	if !utf8.Valid(text) {
		return document{}, fmt.Errorf("%s is not valid UTF-8, as JSON must be: convert it, or pass binary data as a base64 string", what)
	}
	if !json.Valid(text) {
		return document{}, invalidJSON(what, text)
	}
	size, err := jsonbSize(text)
	if err != nil {
		return document{}, fmt.Errorf("%s: %w", what, err)
	}
	return document{text: text, size: size}, nil
}

// invalidJSON says where the text stops being JSON.
func invalidJSON(what string, text []byte) error {
	var ignored json.RawMessage
	err := json.Unmarshal(text, &ignored)
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		err = fmt.Errorf("%w at byte %d", err, syntax.Offset)
	}
	return fmt.Errorf("%s is not JSON: %w: pass JSON text, or a Go value other than []byte to be encoded", what, err)
}
