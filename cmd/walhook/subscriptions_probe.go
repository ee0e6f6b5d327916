package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/walhook/walhook/config"
	"github.com/walhook/walhook/outbox"
)

// pollInterval is the time between two looks at what the relay has recorded, which it does as often.
const pollInterval = 100 * time.Millisecond

// call is the attempt of a test.
type call struct {
	DeliveryID   uuid.UUID `json:"delivery_id"`
	Succeeded    bool      `json:"succeeded"`
	Status       *int      `json:"status"`
	DurationMS   float64   `json:"duration_ms"`
	ResponseBody *string   `json:"response_body"`
	Error        *string   `json:"error"`
}

type probeOptions struct {
	chosen
	eventType, data string
	wait            time.Duration
}

func (a *app) sendTestCommand() *cobra.Command {
	var o probeOptions
	c := &cobra.Command{
		Use:   "test SUBSCRIPTION",
		Short: "Send a made-up event to a subscription and show what its receiver answers",
		Long: "Send a made-up event to one subscription, whatever its event types and filters, and show what its receiver answers. A relay\n" +
			"must be running. The exit code is 0 only when the status was 2xx. --data is JSON text, @FILE or - for standard input.",
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			data, err := a.readData(o.data)
			if err != nil {
				return err
			}
			event := outbox.Event{Type: o.eventType, Payload: data}
			if err := event.Validate(); err != nil {
				return fmt.Errorf("%w: %w", errUsage, err)
			}
			if o.wait <= 0 {
				return fmt.Errorf("%w: --wait %s is too short: give 1s or more", errUsage, o.wait)
			}
			return a.sendTest(c, &o, args[0], data)
		},
	}
	chosenFlags(c, &o.chosen)
	c.Flags().StringVar(&o.eventType, "type", "webhook.test", "type of the event")
	c.Flags().StringVar(&o.data, "data", `{"test": true}`, "payload: JSON, @FILE or -")
	c.Flags().DurationVar(&o.wait, "wait", 10*time.Second, "how long to wait for the answer")
	return c
}

func (a *app) sendTest(c *cobra.Command, o *probeOptions, idOrName string, data json.RawMessage) error {
	return a.onDatabase(c, commandTimeout+o.wait, func(ctx context.Context, _ config.Config, conn *pgx.Conn) error {
		id, err := o.find(ctx, c, conn, idOrName)
		if err != nil {
			return err
		}
		var sent uuid.UUID
		if err := conn.QueryRow(ctx, "SELECT outbox.send_test($1, $2, $3)", id, o.eventType, data).Scan(&sent); err != nil {
			return explainRefusal(fmt.Errorf("send a test: %w", err), nil)
		}
		got, err := waitForCall(ctx, conn, sent, o.wait)
		if err != nil {
			return err
		}
		if err := a.showCall(got, o.json); err != nil {
			return err
		}
		return got.verdict()
	})
}

// waitForCall waits until the first attempt is recorded.
func waitForCall(ctx context.Context, conn *pgx.Conn, id uuid.UUID, wait time.Duration) (*call, error) {
	late := fmt.Errorf("no attempt of delivery %s was recorded within %s: is a relay running (walhook status), and is the receiver slow? Raise --wait", id, wait)
	limited, cancel := context.WithTimeoutCause(ctx, wait, late)
	defer cancel()
	got := call{DeliveryID: id}
	err := poll(limited, func() (bool, error) {
		// The time spares it all but the newest partitions.
		err := conn.QueryRow(ctx, `SELECT status, duration_ms, response_body, error FROM outbox.calls
			WHERE delivery_id = $1 AND attempted_at > now() - interval '1 hour' ORDER BY attempted_at LIMIT 1`, id).
			Scan(&got.Status, &got.DurationMS, &got.ResponseBody, &got.Error)
		if errors.Is(err, pgx.ErrNoRows) {
			return false, nil
		}
		return true, err
	})
	if err != nil {
		return nil, fmt.Errorf("wait for the attempt: %w", err)
	}
	got.Succeeded = got.Error == nil && got.Status != nil && *got.Status/100 == 2
	return &got, nil
}

// poll looks until there is something, or ctx ends, whose cause it returns.
func poll(ctx context.Context, look func() (bool, error)) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		if found, err := look(); err != nil || found {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
}

func (a *app) showCall(got *call, asJSON bool) error {
	if asJSON {
		return a.printJSON(got)
	}
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	row := func(name, value string) { _, _ = fmt.Fprintf(w, "%s\t%s\n", name, value) }
	row("delivery", got.DeliveryID.String())
	row("status", got.statusText())
	row("duration", fmt.Sprintf("%.1f ms", got.DurationMS))
	if got.Error != nil {
		row("error", oneLine(*got.Error))
	}
	_ = w.Flush() // a strings.Builder cannot fail
	if got.ResponseBody != nil && *got.ResponseBody != "" {
		text.WriteString("\n" + printable(*got.ResponseBody) + "\n")
	}
	_, err := fmt.Fprint(a.stdout, text.String())
	return err
}

func (c *call) statusText() string {
	if c.Status == nil {
		return "no answer"
	}
	return fmt.Sprint(*c.Status)
}

// verdict is what the exit code tells.
func (c *call) verdict() error {
	switch {
	case c.Succeeded:
		return nil
	case c.Status == nil:
		return errors.New("the receiver has not answered")
	}
	return fmt.Errorf("the receiver answered %d", *c.Status)
}
