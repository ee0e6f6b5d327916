package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/walhook/walhook/relay"
	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/stream"
	"github.com/walhook/walhook/relay/webhook"
)

// benchFloorCommand is the benchmark's floor of latency: a bare loop from the replication stream to a POST, which
// records nothing, routes nothing, signs nothing and waits for each answer before it goes on.
func (a *app) benchFloorCommand() *cobra.Command {
	var database, slot, from, url string
	c := &cobra.Command{
		Use: "bench-floor", Hidden: true, Args: usage(cobra.NoArgs), Short: "Stream and post for walhook bench",
		RunE: func(c *cobra.Command, _ []string) error {
			start, err := delivery.ParseLSN(from)
			if err != nil {
				return fmt.Errorf("%w: --from: %w", errUsage, err)
			}
			conn, err := stream.Start(c.Context(), benchStream(database, slot), start, delivery.Position{LSN: start})
			if err != nil {
				return err
			}
			defer conn.Close()
			if err := json.NewEncoder(a.stdout).Encode("streaming"); err != nil {
				return fmt.Errorf("tell that it has begun: %w", err)
			}
			return pumpBarely(c.Context(), conn, url)
		},
	}
	c.Flags().StringVar(&database, "database-url", "", "where from")
	c.Flags().StringVar(&slot, "slot", "", "replication slot")
	c.Flags().StringVar(&from, "from", "", "position of the slot")
	c.Flags().StringVar(&url, "url", "", "where to")
	return c
}

// benchStream are the options of a stream that only the benchmark reads, set as the relay's own.
func benchStream(database, slot string) stream.Options {
	return stream.Options{URL: database, Slot: slot, Publications: []string{relay.EventsPublication, relay.ConfigPublication},
		ConnectTimeout: 10 * time.Second, StatusInterval: 10 * time.Second, Log: zerolog.Nop()}
}

// pumpBarely posts every event of the floor's type, one after the other, until ctx ends.
func pumpBarely(ctx context.Context, conn *stream.Conn, url string) error {
	client := plainClient(1)
	defer client.CloseIdleConnections()
	var body []byte
	for ctx.Err() == nil {
		batch, err := conn.Receive(50 * time.Millisecond)
		if err != nil {
			return err
		}
		for _, item := range batch.Items {
			if item.Event == nil {
				conn.Confirm(item.Position.LSN)
				continue
			}
			if body, err = postEvent(ctx, client, url, body[:0], item.Event); err != nil && ctx.Err() == nil {
				return err
			}
		}
	}
	return nil
}

func postEvent(ctx context.Context, client *http.Client, url string, body []byte, e *delivery.Event) ([]byte, error) {
	if e.Type != floorType {
		return body, nil
	}
	body = webhook.AppendEnvelope(body, &delivery.Delivery{ID: e.ID, Event: e}, 1)
	return body, postPlainly(ctx, client, url, body)
}
