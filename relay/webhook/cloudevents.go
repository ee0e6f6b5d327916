package webhook

import (
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/tidwall/gjson"

	"github.com/walhook/walhook/relay/delivery"
)

const cloudEventSize = 320

// eachAttribute yields the context attributes of d as a CloudEvent (CloudEvents 1.0.2, sections 3.1 and 3.2).
// The id is the delivery's, which a receiver that knows CloudEvents compares together with source. The
// extensions are correlationid ("Correlation"), traceparent and tracestate ("Distributed Tracing") and tenant;
// what the event does not have is left out. datacontenttype is not among them: in binary mode it is the
// Content-Type.
func eachAttribute(d *delivery.Delivery, yield func(name, value string)) {
	e := d.Event
	optional := func(name, value string) {
		value = attributeText(value)
		if strings.TrimSpace(value) != "" { // the SDK for Go refuses an event with a subject of spaces
			yield(name, value)
		}
	}
	yield("specversion", "1.0")
	yield("id", idText(d.ID))
	yield("source", uriReference(e.Source))
	yield("type", attributeText(e.Type))
	yield("time", string(appendTimestamp(nil, committedAt(d))))
	optional("subject", e.Key)
	optional("correlationid", e.CorrelationID)
	optional("tenant", e.Tenant)
	parent, state := traceContext(e.Headers)
	optional("traceparent", parent)
	optional("tracestate", state)
}

// appendCloudEvent appends d in the JSON format (CloudEvents JSON Event Format 1.0.2): an object with the
// attributes and, last, the payload as data. An event without a payload has no data.
func appendCloudEvent(dst []byte, d *delivery.Delivery) []byte {
	dst = append(dst, '{')
	eachAttribute(d, func(name, value string) {
		dst = append(dst, '"')
		dst = append(dst, name...)
		dst = append(dst, `":`...)
		dst = gjson.AppendJSONString(dst, value)
		dst = append(dst, ',')
	})
	dst = append(dst, `"datacontenttype":"application/json"`...)
	if len(d.Event.Payload) > 0 {
		dst = append(dst, `,"data":`...)
		dst = append(dst, d.Event.Payload...)
	}
	return append(dst, '}')
}

// addCloudEvent adds the attributes of d as headers (HTTP Protocol Binding 1.0.2, section 3.1.3).
func addCloudEvent(h http.Header, d *delivery.Delivery) {
	eachAttribute(d, func(name, value string) {
		h[textproto.CanonicalMIMEHeaderKey("ce-"+name)] = []string{attributeHeader(value)}
	})
}

// attributeHeader percent-encodes an attribute's value for a header (HTTP Protocol Binding 1.0.2, section
// 3.1.3.2): space, double quote, percent and everything outside U+0021 to U+007E, as the bytes of its UTF-8.
func attributeHeader(value string) string {
	return percentEncode(value, func(c byte) bool { return c > ' ' && c < 0x7f && c != '"' && c != '%' })
}

// percentEncode replaces every byte that is not plain by % and its two hexadecimal digits, in upper case.
func percentEncode(text string, plain func(byte) bool) string {
	const digits = "0123456789ABCDEF"
	var out []byte
	for i := range len(text) {
		c := text[i]
		switch {
		case !plain(c):
			if out == nil {
				out = append(make([]byte, 0, len(text)+16), text[:i]...)
			}
			out = append(out, '%', digits[c>>4], digits[c&15])
		case out != nil:
			out = append(out, c)
		}
	}
	if out == nil {
		return text
	}
	return string(out)
}

// attributeText makes an attribute of type String of any text: CloudEvents 1.0.2, section "Type System",
// has no control characters and no noncharacters in them. What is not allowed becomes U+FFFD.
func attributeText(text string) string {
	return strings.Map(func(r rune) rune {
		control := r < ' ' || r >= 0x7f && r <= 0x9f
		noncharacter := r >= 0xfdd0 && r <= 0xfdef || r&0xfffe == 0xfffe
		if control || noncharacter {
			return utf8.RuneError
		}
		return r // what is not UTF-8 arrives here as U+FFFD already
	}, text)
}

// defaultSource is the source of an event that names none.
const defaultSource = "walhook"

// uriReference makes a URI-reference (RFC 3986, section 4.1) of an event's source. What is one already stays
// as it is; otherwise the characters that none has are percent-encoded, and where that is not enough (a colon
// in the first segment of a path, a port that is no number) all but the unreserved ones are.
func uriReference(source string) string {
	if source == "" {
		return defaultSource
	}
	fragment := false
	text := percentEncode(escapePercent(source), func(c byte) bool {
		second := c == '#' && fragment
		fragment = fragment || c == '#'
		return !second && (isUnreserved(c) || strings.IndexByte("%:/?#@!$&'()*+,;=", c) >= 0)
	})
	if u, err := url.Parse(text); err == nil && u.String() != "" { // "#" alone says nothing to most parsers
		return text
	}
	return percentEncode(source, isUnreserved)
}

// escapePercent encodes every percent sign that is not the beginning of a percent-encoded byte.
func escapePercent(text string) string {
	var out strings.Builder
	for {
		before, after, found := strings.Cut(text, "%")
		out.WriteString(before)
		if !found {
			return out.String()
		}
		out.WriteByte('%')
		if len(after) < 2 || !isHexDigit(after[0]) || !isHexDigit(after[1]) {
			out.WriteString("25")
		}
		text = after
	}
}

// isUnreserved reports whether c is an unreserved character of a URI (RFC 3986, section 2.3).
func isUnreserved(c byte) bool { return isAlphanumeric(c) || strings.IndexByte("-._~", c) >= 0 }

func isHexDigit(c byte) bool { return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f' }

func isAlphanumeric(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' }
