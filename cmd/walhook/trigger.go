package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/walhook/walhook/config"
	"github.com/walhook/walhook/outbox"
)

// triggerTimeout bounds connecting and publishing.
const triggerTimeout = 30 * time.Second

// maxDataText bounds what is read of a file or of standard input, in bytes. It leaves room for white space,
// which does not count towards outbox.MaxPayload.
const maxDataText = 4 * outbox.MaxPayload

type triggerOptions struct {
	event   outbox.Event
	data    string
	headers []string
	emit    bool
	json    bool
}

func (a *app) triggerCommand() *cobra.Command {
	var o triggerOptions
	c := &cobra.Command{
		Use:   "trigger TYPE",
		Short: "Publish an event",
		Long: "Publish an event in a transaction of its own and print its id. The relay delivers it like any other.\n" +
			"--data is JSON text, @FILE for a file's content or - for standard input.",
		Example: "  walhook trigger patient.created --key p-17 --data '{\"patient_id\": \"p-17\", \"department\": \"cardiology\"}'",
		Args:    usage(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			cfg, err := a.load(c.Flags())
			if err != nil {
				return err
			}
			o.event.Type = args[0]
			return a.trigger(c.Context(), cfg, o)
		},
	}
	configFlags(c, "database_url")
	f := c.Flags()
	f.StringVar(&o.data, "data", "{}", "payload: JSON, @FILE or -")
	f.StringVar(&o.event.Key, "key", "", "ordering key, usually the aggregate's id")
	f.StringVar(&o.event.Tenant, "tenant", "", "whose event; only subscriptions of the same tenant see it")
	f.StringVar(&o.event.Source, "source", "", "who produced it")
	f.StringVar(&o.event.CorrelationID, "correlation-id", "", "what it belongs to")
	f.StringArrayVar(&o.headers, "header", nil, "metadata as name=value; may be repeated")
	f.BoolVar(&o.emit, "emit", false, "write a logical message instead of a row (outbox.emit)")
	f.BoolVar(&o.json, "json", false, "print one JSON object")
	return c
}

func (a *app) trigger(ctx context.Context, cfg config.Config, o triggerOptions) error {
	payload, err := a.readData(o.data)
	if err != nil {
		return err
	}
	o.event.Payload = payload
	if o.event.Headers, err = parseHeaders(o.headers); err != nil {
		return err
	}
	if err := o.event.Validate(); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, triggerTimeout, fmt.Errorf("no answer from Postgres within %s", triggerTimeout))
	defer cancel()
	id, err := publishOne(ctx, cfg.DatabaseURL.Reveal(), o)
	if err != nil {
		return schemaMissing(err)
	}
	if o.json {
		return a.printJSON(map[string]any{"id": id, "type": o.event.Type, "emitted": o.emit})
	}
	_, err = fmt.Fprintln(a.stdout, id)
	return err
}

// publishOne publishes in a transaction of its own.
func publishOne(ctx context.Context, url string, o triggerOptions) (id uuid.UUID, err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return id, fmt.Errorf("connect to Postgres: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if o.emit {
			id, err = outbox.Emit(ctx, tx, o.event)
		} else {
			id, err = outbox.Publish(ctx, tx, o.event)
		}
		return err
	})
	return id, err
}

// readData returns the JSON text that --data means.
func (a *app) readData(data string) (json.RawMessage, error) {
	name, text := "--data "+quote(data), []byte(data)
	var err error
	switch {
	case data == "-":
		name = "--data - (standard input)"
		text, err = readBounded(a.stdin)
	case strings.HasPrefix(data, "@"):
		text, err = readFile(data[1:])
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", errUsage, name, err)
	}
	if !json.Valid(text) {
		return nil, fmt.Errorf("%w: %s is not JSON: %w: write an object such as '{\"patient_id\": 17}', @FILE or -", errUsage, name, jsonProblem(text))
	}
	return text, nil
}

// jsonProblem says where the text stops being JSON.
func jsonProblem(text []byte) error {
	var ignored json.RawMessage
	err := json.Unmarshal(text, &ignored)
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Errorf("%w at byte %d", err, syntax.Offset)
	}
	return err
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return readBounded(f)
}

func readBounded(r io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxDataText+1))
	if err == nil && len(text) > maxDataText {
		err = fmt.Errorf("more than %d bytes: publish a reference to the document instead", maxDataText)
	}
	return text, err
}

// parseHeaders reads name=value pairs.
func parseHeaders(pairs []string) (map[string]string, error) {
	headers := make(map[string]string, len(pairs))
	for _, pair := range pairs {
		name, value, ok := strings.Cut(pair, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("%w: --header %s is no name=value", errUsage, quote(pair))
		}
		if _, twice := headers[name]; twice {
			return nil, fmt.Errorf("%w: --header %s is given twice: an event has one value of each", errUsage, quote(name))
		}
		headers[name] = value
	}
	return headers, nil
}

// quote shows a value without filling the screen with it.
func quote(value string) string {
	const most = 80
	if len(value) <= most {
		return fmt.Sprintf("%q", value)
	}
	return fmt.Sprintf("%q…", strings.ToValidUTF8(value[:most], ""))
}
