package main

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/walhook/walhook/config"
)

// commandTimeout bounds connecting and the statements of a command that does not wait for others.
const commandTimeout = 30 * time.Second

func (a *app) subscriptionsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "subscriptions",
		Short: "List, add, change, test and remove webhooks",
		Long: "List, add, change, test and remove webhooks: the rows of outbox.subscriptions. Changes take effect live. Where a\n" +
			"command takes a SUBSCRIPTION, give its id or a name that only one has; --tenant looks at one tenant only.",
		Aliases: []string{"subscription"},
		Args:    usage(cobra.NoArgs),
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(
		a.listCommand(), a.addCommand(), a.showCommand(), a.updateCommand(), a.removeCommand(),
		a.activeCommand("activate", "Begin or go on to deliver", true),
		a.activeCommand("deactivate", "Stop delivering; what is published meanwhile is not queued", false),
		a.sendTestCommand(), a.rotateSecretCommand(),
	)
	return c
}

// chosen is how the commands on one subscription are told which.
type chosen struct {
	tenant string
	json   bool
}

// chosenFlags registers what all commands on one subscription understand.
func chosenFlags(c *cobra.Command, o *chosen) {
	configFlags(c, "database_url")
	c.Flags().StringVar(&o.tenant, "tenant", "", "only a subscription of this tenant")
	c.Flags().BoolVar(&o.json, "json", false, "print one JSON object")
}

// find returns the id of the subscription that a command was told by id or name.
func (o *chosen) find(ctx context.Context, c *cobra.Command, conn *pgx.Conn, idOrName string) (uuid.UUID, error) {
	var tenant *string
	if c.Flags().Changed("tenant") {
		tenant = &o.tenant
	}
	return findSubscription(ctx, conn, idOrName, tenant)
}

// findSubscription takes an id or a name, of any tenant when tenant is nil. The id goes first: a name may look
// like the id of another.
func findSubscription(ctx context.Context, conn *pgx.Conn, idOrName string, tenant *string) (uuid.UUID, error) {
	var byID *uuid.UUID
	if id, err := uuid.Parse(idOrName); err == nil {
		byID = &id
	}
	rows, err := conn.Query(ctx, `SELECT id FROM outbox.subscriptions WHERE (id = $1 OR name = $2) AND ($3::text IS NULL OR tenant = $3)
		ORDER BY id = $1 DESC LIMIT 2`, byID, idOrName, tenant)
	if err != nil {
		return uuid.Nil, fmt.Errorf("find subscription: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	switch {
	case err != nil:
		return uuid.Nil, fmt.Errorf("find subscription: %w", err)
	case len(ids) == 0:
		return uuid.Nil, fmt.Errorf("there is no subscription %s%s: walhook subscriptions list shows what there is", quote(idOrName), ofTenant(tenant))
	case len(ids) > 1 && (byID == nil || ids[0] != *byID):
		return uuid.Nil, fmt.Errorf("%w: several subscriptions are named %s: give --tenant or the id", errUsage, quote(idOrName))
	}
	return ids[0], nil
}

func ofTenant(tenant *string) string {
	if tenant == nil {
		return ""
	}
	return " of tenant " + quote(*tenant)
}

// onDatabase reads the configuration, connects, and calls do with a context that ends after limit; 0 means that
// do takes its time, and the command's own context ends it.
func (a *app) onDatabase(c *cobra.Command, limit time.Duration, do func(context.Context, config.Config, *pgx.Conn) error) error {
	cfg, err := a.load(c.Flags())
	if err != nil {
		return err
	}
	ctx := c.Context()
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer from Postgres within %s", limit))
		defer cancel()
	}
	conn, err := connect(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	err = do(ctx, cfg, conn)
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	return schemaMissing(err)
}

// connect opens a connection within the configured time.
func connect(ctx context.Context, cfg config.Config) (*pgx.Conn, error) {
	c, err := pgx.ParseConfig(cfg.DatabaseURL.Reveal())
	if err != nil {
		return nil, fmt.Errorf("%w: database_url: %w", errUsage, err)
	}
	c.ConnectTimeout = cfg.Replication.ConnectTimeout
	conn, err := pgx.ConnectConfig(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("connect to Postgres: %w", err)
	}
	return conn, nil
}

func (a *app) removeCommand() *cobra.Command {
	var o chosen
	c := &cobra.Command{
		Use:   "remove SUBSCRIPTION",
		Short: "Remove a subscription; what still waits for it is not delivered",
		Args:  usage(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			return a.onDatabase(c, commandTimeout, func(ctx context.Context, _ config.Config, conn *pgx.Conn) error {
				id, err := o.find(ctx, c, conn, args[0])
				if err != nil {
					return err
				}
				if _, err := conn.Exec(ctx, "DELETE FROM outbox.subscriptions WHERE id = $1", id); err != nil {
					return fmt.Errorf("remove subscription: %w", err)
				}
				return a.did(o.json, "removed", id)
			})
		},
	}
	chosenFlags(c, &o)
	return c
}

func (a *app) activeCommand(name, short string, active bool) *cobra.Command {
	var o chosen
	c := &cobra.Command{
		Use: name + " SUBSCRIPTION", Short: short, Args: usage(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			return a.onDatabase(c, commandTimeout, func(ctx context.Context, _ config.Config, conn *pgx.Conn) error {
				id, err := o.find(ctx, c, conn, args[0])
				if err != nil {
					return err
				}
				query := "SELECT outbox.activate($1)"
				if !active {
					query = "SELECT outbox.deactivate($1)"
				}
				if _, err := conn.Exec(ctx, query, id); err != nil {
					return fmt.Errorf("%s subscription: %w", name, err)
				}
				return a.did(o.json, name+"d", id)
			})
		},
	}
	chosenFlags(c, &o)
	return c
}

// did says what was done to a subscription.
func (a *app) did(asJSON bool, what string, id uuid.UUID) error {
	if asJSON {
		return a.printJSON(map[string]any{"id": id, "done": what})
	}
	_, err := fmt.Fprintf(a.stdout, "%s %s\n", what, id)
	return err
}
