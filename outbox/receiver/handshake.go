package receiver

import (
	"encoding/json"
	"net/http"
	"slices"
)

// CloudEventsGrant answers a CloudEvents sender that asks with OPTIONS whether it may deliver (HTTP 1.1 Web Hooks
// for Event Delivery, section 4). It returns the headers of the answer, and whether the request asks at all and
// its origin is one of the allowed; "*" allows every one. The rate is not limited.
func CloudEventsGrant(request http.Header, allowed ...string) (http.Header, bool) {
	origin := request.Get("WebHook-Request-Origin")
	if origin == "" || !slices.Contains(allowed, "*") && !slices.Contains(allowed, origin) {
		return nil, false
	}
	answer := http.Header{}
	answer.Set("Allow", http.MethodPost)
	answer.Set("WebHook-Allowed-Origin", origin)
	answer.Set("WebHook-Allowed-Rate", "*")
	return answer, true
}

// SlackChallenge returns what a request of Slack's url_verification wants to hear, and whether body is one. It
// is sent as text/plain (https://docs.slack.dev/reference/events/url_verification).
func SlackChallenge(body []byte) (string, bool) {
	var question struct{ Type, Challenge string }
	err := json.Unmarshal(body, &question)
	return question.Challenge, err == nil && question.Type == "url_verification" && question.Challenge != ""
}
