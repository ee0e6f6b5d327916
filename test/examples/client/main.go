// Command client shows how a Go program uses walhook's REST API with nothing but the standard library: client.go is there to
// be copied, this file to be read.
//
//	export WALHOOK_URL=http://127.0.0.1:8080
//	export WALHOOK_TOKEN=$(walhook token create --name client --scope manage,publish)
//	go run ./test/examples/client http://127.0.0.1:3000/hooks
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
)

func main() {
	if len(os.Args) != 2 || os.Getenv("WALHOOK_TOKEN") == "" {
		fmt.Fprintln(os.Stderr, "usage: WALHOOK_URL=… WALHOOK_TOKEN=… client RECEIVER-URL")
		os.Exit(2)
	}
	if err := walk(context.Background(), NewClient(os.Getenv("WALHOOK_URL"), os.Getenv("WALHOOK_TOKEN")), os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "client:", err)
		os.Exit(1)
	}
}

// walk makes a webhook, changes it, sends it a test and an event, and removes it.
func walk(ctx context.Context, c *Client, receiver string) error {
	retries := 3
	w, err := c.Create(ctx, Webhook{
		Name: "Cardiology", URL: receiver, Events: []string{"patient.*"}, Filters: map[string]any{"department": "cardiology"},
		Secret: "correct horse battery staple", MaxRetries: &retries, RetryDelay: 60, Timeout: 30,
	})
	if err != nil {
		return fmt.Errorf("create a webhook: %w", err)
	}
	fmt.Println("created", w.ID)

	w, err = c.Update(ctx, w.ID, func(now Webhook) map[string]any { return map[string]any{"max_retries": *now.MaxRetries + 1} })
	if err != nil {
		return fmt.Errorf("change the webhook: %w", err)
	}
	fmt.Println("changed: max_retries", *w.MaxRetries, "revision", w.Revision)

	_, err = c.Update(ctx, w.ID, func(Webhook) map[string]any { return map[string]any{"max_retries": 11} })
	var problem *Problem
	if errors.As(err, &problem) && len(problem.Errors) > 0 {
		fmt.Println("refused:", problem.Status, problem.Errors[0].Location, problem.Errors[0].Message)
	}

	call, err := c.Test(ctx, w.ID, "patient.created", map[string]any{"id": 1})
	if err != nil {
		return fmt.Errorf("send a test: %w", err)
	}
	fmt.Println("tested: succeeded", call.Succeeded)

	data := map[string]any{"id": json.Number("9007199254740993"), "department": "cardiology", "amount": json.Number("1200.50")}
	event, err := c.Trigger(ctx, "patient.created", "42", data)
	if err != nil {
		return fmt.Errorf("publish an event: %w", err)
	}
	fmt.Println("published", event)

	for w, err := range c.Webhooks(ctx, "active") {
		if err != nil {
			return fmt.Errorf("list webhooks: %w", err)
		}
		fmt.Println("listed", w.ID, w.Name)
	}
	return nil
}
