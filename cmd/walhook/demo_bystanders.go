package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/walhook/walhook/outbox"
)

// demoBystanders are subscriptions with something wrong, so that a demo without an end has it to show. The ledger knows
// nothing of them: they do not change what the demo promises. They get what happens seldom, because what waits for the
// ones that are broken or slow stays in the queue for long.
func demoBystanders(url string) []demoSubscription {
	const secret = "demo-secret-of-a-bystander"
	return []demoSubscription{
		{name: "laboratory", description: "Out of order: every request is answered with 500, and after one retry a delivery is a dead letter.",
			url: url + "/broken", secret: secret, eventTypes: []string{"object.published"}, maxRetries: 1,
			headers: `{"Authorization": "Bearer demo-of-the-laboratory"}`},
		{name: "archive", description: "Slow: an answer takes one to two seconds, and only one request at a time is allowed.",
			url: url + "/slow", secret: "whsec_ZGVtby1zZWNyZXQtb2YtdGhlLWFyY2hpdmU=", eventTypes: []string{"queue.joined", "object.deleted"}, maxRetries: 3,
			maxInFlight: 1, signature: "standard", format: "cloudevents"},
		{name: "pharmacy", description: "Invalid: its filter has an operator that does not exist. Edit it, and it works.",
			url: url + "/", secret: secret, eventTypes: []string{"payment.*"}, filters: `{"amount": {"at_least": 100}}`, maxRetries: 3},
		{name: "school of nursing", description: "Inactive: switch it on, and it gets what is published from then on.",
			url: url + "/", secret: secret, eventTypes: []string{"user.*", "system.*"}, maxRetries: 3, inactive: true},
	}
}

// startBystanders starts the server behind them. It answers after the fashion of the path.
func startBystanders(ctx context.Context) (*demoServer, error) {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("POST /broken", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, "<h1>Out of <b>order</b></h1><script>alert('a receiver wrote this')</script>\n")
	})
	mux.HandleFunc("POST /slow", func(_ http.ResponseWriter, r *http.Request) {
		wait := time.NewTimer(time.Second + rand.N(time.Second))
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-r.Context().Done():
		}
	})
	s, err := startDemoServer(ctx, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Only when the body was read does a server notice that the sender has gone.
		if _, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, 2*outbox.MaxPayload)); err != nil {
			panic(http.ErrAbortHandler)
		}
		mux.ServeHTTP(w, r)
	}))
	if err != nil {
		return nil, fmt.Errorf("start the receivers that are broken: %w", err)
	}
	return s, nil
}
