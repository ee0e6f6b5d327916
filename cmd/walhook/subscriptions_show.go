package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/walhook/walhook/config"
)

// subscription is what is shown of one: never a secret, only where it is, and no header that may be a credential.
// Durations are seconds.
type subscription struct {
	ID                uuid.UUID       `json:"id" db:"id"`
	Tenant            string          `json:"tenant" db:"tenant"`
	Name              string          `json:"name" db:"name"`
	Description       string          `json:"description" db:"description"`
	URL               string          `json:"url" db:"url"`
	Events            []string        `json:"events" db:"event_types"`
	Filters           json.RawMessage `json:"filters" db:"filters"`
	Headers           json.RawMessage `json:"headers" db:"headers"`
	Secret            string          `json:"secret" db:"secret"`
	PreviousSecret    string          `json:"previous_secret" db:"previous_secret"`
	PreviousExpiresAt *time.Time      `json:"previous_secret_expires_at" db:"previous_secret_expires_at"`
	Signature         string          `json:"signature" db:"signature"`
	PayloadFormat     string          `json:"payload_format" db:"payload_format"`
	PayloadVersion    int             `json:"payload_version" db:"payload_version"`
	MaxRetries        int             `json:"max_retries" db:"max_retries"`
	RetryDelay        float64         `json:"retry_delay" db:"retry_delay"`
	Timeout           float64         `json:"timeout" db:"timeout"`
	Ordering          string          `json:"ordering" db:"ordering"`
	MaxInFlight       int             `json:"max_in_flight" db:"max_in_flight"`
	RateLimit         *int            `json:"rate_limit" db:"rate_limit"`
	BatchSize         int             `json:"batch_size" db:"batch_size"`
	BatchWait         float64         `json:"batch_wait" db:"batch_wait"`
	Verification      string          `json:"verification" db:"verification"`
	VerifiedAt        *time.Time      `json:"verified_at" db:"verified_at"`
	VerificationError *string         `json:"verification_error" db:"verification_error"`
	IsActive          bool            `json:"is_active" db:"is_active"`
	Status            string          `json:"status" db:"status"`
	StatusReason      *string         `json:"status_reason" db:"status_reason"`
	CreatedAt         *time.Time      `json:"created_at" db:"created_at"`
	UpdatedAt         *time.Time      `json:"updated_at" db:"updated_at"`
}

// secretKind tells in SQL what a secret column holds, so that no secret leaves the database.
func secretKind(column string) string {
	return strings.ReplaceAll(`CASE WHEN s.? IS NULL THEN 'none' WHEN s.? ~ '^env:[A-Za-z_][A-Za-z0-9_]*$' THEN s.?
		WHEN s.? LIKE 'file:/%' THEN s.? WHEN s.? LIKE 'enc:%' THEN 'encrypted' ELSE 'plain' END AS ?`, "?", column)
}

// finite reads a time; Postgres has infinite ones, which Go and JSON don't.
func finite(column string) string {
	return strings.ReplaceAll("CASE WHEN isfinite(s.?) THEN s.? END AS ?", "?", column)
}

// seconds reads an interval.
func seconds(column string) string {
	return strings.ReplaceAll("extract(epoch FROM s.?)::float8 AS ?", "?", column)
}

var subscriptionQuery = "SELECT " + strings.Join([]string{
	"s.id", "s.tenant", "s.name", "s.description", "s.url", "s.event_types", "s.filters", "outbox.redact_headers(s.headers) AS headers",
	secretKind("secret"), secretKind("previous_secret"), finite("previous_secret_expires_at"),
	"s.signature", "s.payload_format", "s.payload_version", "s.max_retries", seconds("retry_delay"), seconds("timeout"),
	"s.ordering", "s.max_in_flight", "s.rate_limit", "s.batch_size", seconds("batch_wait"),
	"s.verification", finite("verified_at"), "s.verification_error", "s.is_active", "s.status", "s.status_reason",
	finite("created_at"), finite("updated_at"),
}, ", ") + " FROM outbox.subscriptions s "

// querier is a connection or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

func readSubscription(ctx context.Context, db querier, id uuid.UUID) (*subscription, error) {
	rows, err := db.Query(ctx, subscriptionQuery+"WHERE s.id = $1", id)
	if err != nil {
		return nil, fmt.Errorf("read subscription: %w", err)
	}
	s, err := pgx.CollectExactlyOneRow(rows, pgx.RowToAddrOfStructByName[subscription])
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("there is no subscription %s any more", id)
	}
	if err != nil {
		return nil, fmt.Errorf("read subscription: %w", err)
	}
	return s, nil
}

func (a *app) showCommand() *cobra.Command {
	var o chosen
	c := &cobra.Command{
		Use:   "show SUBSCRIPTION",
		Short: "Show everything about a subscription but its secrets",
		Args:  usage(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			return a.onDatabase(c, commandTimeout, func(ctx context.Context, _ config.Config, conn *pgx.Conn) error {
				id, err := o.find(ctx, c, conn, args[0])
				if err != nil {
					return err
				}
				s, err := readSubscription(ctx, conn, id)
				if err != nil {
					return err
				}
				if o.json {
					return a.printJSON(s)
				}
				return s.write(a.stdout)
			})
		},
	}
	chosenFlags(c, &o)
	return c
}

// write makes a table of one line a column.
func (s *subscription) write(to io.Writer) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		_, _ = fmt.Fprintf(w, "%s\t%s\n", name, oneLine(fmt.Sprintf(format, args...))) // Flush tells
	}
	row("id", "%s", s.ID)
	row("tenant", "%s", s.Tenant)
	row("name", "%s", s.Name)
	row("description", "%s", s.Description)
	row("state", "%s", s.state())
	row("url", "%s", s.URL)
	row("events", "%s", s.events())
	row("filters", "%s", s.Filters)
	row("headers", "%s", s.Headers)
	row("signature", "%s, secret: %s%s", s.Signature, s.Secret, s.previous())
	row("payload", "%s, version %d", s.PayloadFormat, s.PayloadVersion)
	row("retries", "%d, the first after %s", s.MaxRetries, duration(s.RetryDelay))
	row("timeout", "%s", duration(s.Timeout))
	row("ordering", "%s", s.Ordering)
	row("in flight", "%d at most", s.MaxInFlight)
	row("rate limit", "%s", s.limit())
	row("batch", "%d at most, within %s", s.BatchSize, duration(s.BatchWait))
	row("verification", "%s", s.verification())
	row("created", "%s", timeText(s.CreatedAt))
	row("updated", "%s", timeText(s.UpdatedAt))
	return w.Flush()
}

// oneLine shows foreign text in one cell of a table.
func oneLine(text string) string {
	return strings.NewReplacer("\n", `\n`, "\t", `\t`).Replace(printable(text))
}

func (s *subscription) state() string {
	switch {
	case s.Status != "valid":
		return s.Status + " (" + orDash(s.StatusReason) + ")"
	case !s.IsActive:
		return "inactive"
	case s.Verification != "none" && s.VerifiedAt == nil:
		return "unverified"
	}
	return "active"
}

func (s *subscription) events() string {
	if len(s.Events) == 0 {
		return "all"
	}
	return strings.Join(s.Events, ",")
}

func (s *subscription) previous() string {
	if s.PreviousSecret == "none" {
		return ""
	}
	until := "for ever"
	if s.PreviousExpiresAt != nil {
		until = "until " + timeText(s.PreviousExpiresAt)
	}
	return ", previous: " + s.PreviousSecret + " " + until
}

func (s *subscription) limit() string {
	if s.RateLimit == nil {
		return "none"
	}
	return fmt.Sprintf("%d requests a second", *s.RateLimit)
}

func (s *subscription) verification() string {
	switch {
	case s.Verification == "none":
		return "none"
	case s.VerifiedAt != nil:
		return s.Verification + ", passed " + timeText(s.VerifiedAt)
	}
	return s.Verification + ", not passed: " + orDash(s.VerificationError)
}

func duration(seconds float64) string {
	return time.Duration(seconds * float64(time.Second)).String()
}

func timeText(at *time.Time) string {
	if at == nil {
		return "-"
	}
	return at.UTC().Format(time.RFC3339)
}

// listOptions choose what is listed.
type listOptions struct {
	tenant, status, after string
	limit                 int
	json                  bool
}

// listConditions are what --status means.
var listConditions = map[string]string{
	"":         "true",
	"active":   "s.is_active",
	"inactive": "NOT s.is_active",
	"invalid":  "s.status <> 'valid'",
}

func (a *app) listCommand() *cobra.Command {
	var o listOptions
	c := &cobra.Command{
		Use:   "list",
		Short: "List subscriptions in the order of their ids",
		Long:  "List subscriptions in the order of their ids. When there are more than --limit, what to give as --after is said at the end.",
		Args:  usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if _, known := listConditions[o.status]; !known {
				return fmt.Errorf("%w: --status %s is not known: give active, inactive or invalid", errUsage, quote(o.status))
			}
			if o.limit < 1 || o.limit > 10000 {
				return fmt.Errorf("%w: --limit %d: give 1 to 10000", errUsage, o.limit)
			}
			return a.list(c, o)
		},
	}
	configFlags(c, "database_url")
	f := c.Flags()
	f.StringVar(&o.tenant, "tenant", "", "only those of this tenant")
	f.StringVar(&o.status, "status", "", "only those that are active, inactive or invalid")
	f.StringVar(&o.after, "after", "", "only those behind this id")
	f.IntVar(&o.limit, "limit", 1000, "how many at most")
	f.BoolVar(&o.json, "json", false, "print one JSON object: subscriptions, next")
	return c
}

func (a *app) list(c *cobra.Command, o listOptions) error {
	var after *uuid.UUID
	if o.after != "" {
		id, err := uuid.Parse(o.after)
		if err != nil {
			return fmt.Errorf("%w: --after %s is no id: give that of a subscription", errUsage, quote(o.after))
		}
		after = &id
	}
	var tenant *string
	if c.Flags().Changed("tenant") {
		tenant = &o.tenant
	}
	return a.onDatabase(c, commandTimeout, func(ctx context.Context, _ config.Config, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, subscriptionQuery+"WHERE ($1::text IS NULL OR s.tenant = $1) AND ($2::uuid IS NULL OR s.id > $2) AND "+
			listConditions[o.status]+" ORDER BY s.id LIMIT $3", tenant, after, o.limit+1)
		if err != nil {
			return fmt.Errorf("list subscriptions: %w", err)
		}
		all, err := pgx.CollectRows(rows, pgx.RowToAddrOfStructByName[subscription])
		if err != nil {
			return fmt.Errorf("list subscriptions: %w", err)
		}
		var next *uuid.UUID
		if len(all) > o.limit {
			all = all[:o.limit]
			next = &all[o.limit-1].ID
		}
		return a.showList(all, next, o.json)
	})
}

func (a *app) showList(all []*subscription, next *uuid.UUID, asJSON bool) error {
	if asJSON {
		return a.printJSON(map[string]any{"subscriptions": all, "next": next})
	}
	if len(all) == 0 {
		_, err := fmt.Fprintln(a.stdout, "no subscriptions: add one with walhook subscriptions add")
		return err
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "ID\tTENANT\tNAME\tSTATE\tURL\tEVENTS\tSIGNATURE\tSECRET")
	for _, s := range all {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.ID, oneLine(dashed(s.Tenant)), oneLine(s.Name), oneLine(s.state()),
			oneLine(s.URL), oneLine(s.events()), s.Signature, oneLine(s.Secret))
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write list: %w", err)
	}
	if next != nil {
		_, err := fmt.Fprintf(a.stderr, "walhook: there are more: give --after %s\n", next)
		return err
	}
	return nil
}

func dashed(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
