package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/walhook/walhook/config"
)

func (a *app) addCommand() *cobra.Command {
	var json bool
	var tenant string
	var headers headerFlags
	var secrets secretFlags
	var columns []*columnFlag
	c := &cobra.Command{
		Use:   "add",
		Short: "Add a subscription and print its id",
		Long: "Add a subscription and print its id. What is not given has the default of the column. A secret is stored encrypted when\n" +
			"a keyset is configured, and else as it is given; env:NAME and file:/path are stored as they are and followed by the relay.",
		Example: "  walhook subscriptions add --name billing --url https://billing.example/hooks --event-types 'invoice.*' --generate-secret",
		Args:    usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			given := assigned(columns)
			if c.Flags().Changed("tenant") {
				given = append(given, assignment{"tenant", tenant, quote(tenant)})
			}
			if err := wanted(given, "name", "url"); err != nil {
				return err
			}
			extra, err := headers.assignment()
			if err != nil {
				return err
			}
			return a.add(c, append(given, extra...), &secrets, json)
		},
	}
	configFlags(c, "database_url")
	columns = columnFlags(c, append(append([]column(nil), subscriptionColumns...), backfillColumn)...)
	c.Flags().StringVar(&tenant, "tenant", "", "whose events it gets")
	headers.register(c, false)
	secrets.register(c, false)
	c.Flags().BoolVar(&json, "json", false, "print one JSON object")
	return c
}

// wanted requires columns that have no default.
func wanted(given []assignment, columns ...string) error {
	for _, column := range columns {
		if find(given, column) == nil {
			return fmt.Errorf("%w: --%s is not given: a subscription needs one", errUsage, column)
		}
	}
	return nil
}

func find(given []assignment, column string) *assignment {
	for i := range given {
		if given[i].column == column {
			return &given[i]
		}
	}
	return nil
}

// add makes the id before the row, because a secret is encrypted for its id.
func (a *app) add(c *cobra.Command, given []assignment, secrets *secretFlags, json bool) error {
	id, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("make an id: %w", err)
	}
	signature := "sha256"
	if chosen := find(given, "signature"); chosen != nil {
		signature = fmt.Sprint(chosen.value)
	}
	made, err := a.readSecret(secrets, signature)
	if err != nil {
		return err
	}
	return a.onDatabase(c, commandTimeout, func(ctx context.Context, cfg config.Config, conn *pgx.Conn) error {
		stored, err := made.assignment(cfg, id)
		if err != nil {
			return err
		}
		given = append(given, stored...)
		return a.write(ctx, conn, written{id: id, json: json, secret: made, given: given}, func(tx pgx.Tx) error {
			return insertSubscription(ctx, tx, id, given)
		})
	})
}

// written is a subscription that a command writes, for what follows.
type written struct {
	id     uuid.UUID
	json   bool
	secret *newSecret // nil: left alone
	given  []assignment
}

// write runs change in a transaction, checks and shows what it made of the subscription.
func (a *app) write(ctx context.Context, conn *pgx.Conn, w written, change func(pgx.Tx) error) error {
	var s *subscription
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) (err error) {
		if err := change(tx); err != nil {
			return err
		}
		if s, err = readSubscription(ctx, tx, w.id); err != nil {
			return err
		}
		return w.secret.check(s.Signature)
	})
	if err != nil {
		return explainRefusal(err, w.given)
	}
	return a.showWritten(s, w)
}

// showWritten prints the id, and a secret that was made here: nobody can read it again.
func (a *app) showWritten(s *subscription, w written) error {
	made := w.secret
	a.warn(made)
	if w.json {
		o := struct {
			*subscription
			Generated string `json:"generated_secret,omitempty"`
			Public    string `json:"public_key,omitempty"`
		}{subscription: s}
		if made != nil && made.generated {
			o.Generated, o.Public = made.value, made.public
		}
		return a.printJSON(o)
	}
	var text strings.Builder
	text.WriteString(s.ID.String() + "\n")
	if made != nil && made.generated {
		text.WriteString("secret: " + made.value + "\n")
		if made.public != "" {
			text.WriteString("public key: " + made.public + "\n")
		}
	}
	_, err := fmt.Fprint(a.stdout, text.String())
	return err
}

// insertSubscription writes a new row. Column names are those of the table above, never a user's.
func insertSubscription(ctx context.Context, tx pgx.Tx, id uuid.UUID, given []assignment) error {
	columns, places, values := "id", "$1", []any{id}
	for _, g := range given {
		values = append(values, g.value)
		columns += ", " + g.column
		places += fmt.Sprintf(", $%d", len(values))
	}
	if _, err := tx.Exec(ctx, "INSERT INTO outbox.subscriptions ("+columns+") VALUES ("+places+")", values...); err != nil {
		return fmt.Errorf("add subscription: %w", err)
	}
	return nil
}

func (a *app) updateCommand() *cobra.Command {
	var o chosen
	var tenant string
	var headers headerFlags
	var secrets secretFlags
	var columns []*columnFlag
	c := &cobra.Command{
		Use:     "update SUBSCRIPTION",
		Short:   "Change a subscription",
		Long:    "Change what is given and leave the rest. A new secret replaces the old one at once; rotate-secret lets both sign for a while.",
		Example: "  walhook subscriptions update billing --max-retries 10 --retry-delay 30s",
		Args:    usage(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			given := assigned(columns)
			if c.Flags().Changed("new-tenant") {
				given = append(given, assignment{"tenant", tenant, quote(tenant)})
			}
			extra, err := headers.assignment()
			if err != nil {
				return err
			}
			return a.update(c, &o, args[0], append(given, extra...), &secrets)
		},
	}
	chosenFlags(c, &o)
	columns = columnFlags(c, subscriptionColumns...)
	c.Flags().StringVar(&tenant, "new-tenant", "", "give it to this tenant")
	headers.register(c, true)
	secrets.register(c, true)
	return c
}

func (a *app) update(c *cobra.Command, o *chosen, idOrName string, given []assignment, secrets *secretFlags) error {
	if len(given) == 0 && !secrets.given() {
		return fmt.Errorf("%w: nothing to change is given: see %s --help", errUsage, c.CommandPath())
	}
	return a.onDatabase(c, commandTimeout, func(ctx context.Context, cfg config.Config, conn *pgx.Conn) error {
		id, err := o.find(ctx, c, conn, idOrName)
		if err != nil {
			return err
		}
		made, stored, err := a.secretFor(ctx, cfg, conn, id, given, secrets)
		if err != nil {
			return err
		}
		given := append(given, stored...)
		return a.write(ctx, conn, written{id: id, json: o.json, secret: made, given: given}, func(tx pgx.Tx) error {
			return updateSubscription(ctx, tx, id, given)
		})
	})
}

// secretFor reads the secret that was given for a subscription which is there, and makes it ready to be stored.
func (a *app) secretFor(ctx context.Context, cfg config.Config, conn *pgx.Conn, id uuid.UUID, given []assignment, secrets *secretFlags) (*newSecret, []assignment, error) {
	s, err := readSubscription(ctx, conn, id)
	if err != nil {
		return nil, nil, err
	}
	if chosen := find(given, "signature"); chosen != nil {
		s.Signature = fmt.Sprint(chosen.value)
	}
	made, err := a.readSecret(secrets, s.Signature)
	if err != nil {
		return nil, nil, err
	}
	stored, err := made.assignment(cfg, id)
	return made, append(stored, secrets.removals()...), err
}

// updateSubscription changes a row that must still be there.
func updateSubscription(ctx context.Context, tx pgx.Tx, id uuid.UUID, given []assignment) error {
	set, values := make([]string, len(given)), []any{id}
	for i, g := range given {
		values = append(values, g.value)
		set[i] = fmt.Sprintf("%s = $%d", g.column, len(values))
	}
	tag, err := tx.Exec(ctx, "UPDATE outbox.subscriptions SET "+strings.Join(set, ", ")+" WHERE id = $1", values...)
	if err != nil {
		return fmt.Errorf("change subscription: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return fmt.Errorf("change subscription %s: it was removed meanwhile", id)
	}
	return nil
}
