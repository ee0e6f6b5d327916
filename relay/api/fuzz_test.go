package api_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/api"
)

// FuzzAPI gives foreign bytes to everything that decodes them. What is accepted must be JSON that says the same to every
// decoder, and event_data must be the bytes that were sent.
func FuzzAPI(f *testing.F) {
	for _, seed := range []string{
		"", "{}", minimal, `{"name": null}`, `{"headers": {"a": "b"}, "events": ["a", "b.*"], "filters": {"a_min": 1e5}, "secret": null, "rate_limit": 3}`,
		`{"event_type": "x", "event_data": {"a": [1, 2.50, "\ud83d\ude00", {"b": null}]}, "key": "k"}`, `{"event_type": "x", "event_data": "\u0000"}`,
		`{"since": "2026-01-01T00:00:00Z", "only_failed": true}`, `{"a": {"a": 1, "a": 2}}`, `[[[[]]]]`, `{"a":"\\\"","b":[]} `, `"7"`, `W/"7"`, `*`, `"7", "8"`, "failed", "503",
		"{\"a\"\t:\n1\r,\"\\u0061\":2}", `{"new_secret": "s", "overlap": 1e308}`, strings.Repeat("[", 70), `{"\ud800": 1}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if change, err := api.DecodeCreate(text); err == nil {
			checkAccepted(t, text)
			require.NoError(t, api.DecodePut(text), "a PUT takes what a POST does")
			if change.Name != nil {
				require.NotContains(t, *change.Name, "\x00")
			}
		}
		if data, err := api.DecodeTrigger(text); err == nil {
			require.True(t, json.Valid(text))
			var want struct {
				Data json.RawMessage `json:"event_data"`
			}
			require.NoError(t, json.Unmarshal(text, &want))
			if data != nil {
				require.True(t, bytes.Contains(text, data))
				require.True(t, json.Valid(data))
			}
		}
		for _, decode := range []func([]byte) error{api.DecodePut, api.DecodeTest, api.DecodeRotate, api.DecodeReplay, api.DecodeEventType} {
			if decode(text) == nil {
				require.True(t, json.Valid(text))
			}
		}
		if whatever, revisions, err := api.ParseIfMatch(string(text)); err == nil && whatever {
			require.Empty(t, revisions)
			require.Contains(t, []string{"", "*"}, strings.Trim(string(text), " \t"))
		}
		_ = api.ParseStatus(string(text))
	})
}

// checkAccepted holds a text that was accepted to what it promises: valid, no names twice at any depth.
func checkAccepted(t *testing.T, text []byte) {
	require.NoError(t, api.CheckText(text, 64))
	require.NoError(t, api.CheckUnique(bytes.Trim(text, " \t\r\n")))
	d := json.NewDecoder(bytes.NewReader(text))
	_, err := d.Token()
	require.NoError(t, err)
	names := map[any]bool{}
	for d.More() {
		name, err := d.Token()
		require.NoError(t, err)
		require.False(t, names[name], "%v twice", name)
		names[name] = true
		var value json.RawMessage
		require.NoError(t, d.Decode(&value))
	}
}
