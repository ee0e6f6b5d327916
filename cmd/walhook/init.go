package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/walhook/walhook/config"
	"github.com/walhook/walhook/relay"
	whsql "github.com/walhook/walhook/sql"
)

func (a *app) initCommand() *cobra.Command {
	var asJSON, printSQL, roles bool
	c := &cobra.Command{
		Use:   "init",
		Short: "Make schema, publications and replication slot; may be repeated",
		Args:  usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if printSQL {
				_, err := fmt.Fprint(a.stdout, choose(roles, whsql.RolesText(), whsql.Text()))
				return err
			}
			cfg, err := a.load(c.Flags())
			if err != nil {
				return err
			}
			done, err := setUp(c.Context(), cfg)
			if roles && err == nil {
				done, err = grantRoles(c.Context(), cfg.DatabaseURL.Reveal(), done)
			}
			if asJSON && err == nil {
				return a.printJSON(map[string]any{"done": done, "slot": cfg.Slot})
			}
			for _, step := range done {
				if _, err := fmt.Fprintln(a.stdout, step); err != nil {
					return err
				}
			}
			if err == nil && len(done) == 0 {
				_, err = fmt.Fprintln(a.stdout, "everything is there already")
			}
			return err
		},
	}
	configFlags(c, "database_url", "slot")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	c.Flags().BoolVar(&printSQL, "print-sql", false, "print the schema as plain SQL and do nothing; with --roles that of the roles")
	c.Flags().BoolVar(&roles, "roles", false, "make the group roles walhook_relay, walhook_app, walhook_config and walhook_reader with the least rights that each takes")
	return c
}

// setUp makes what is missing and says what it made.
func setUp(ctx context.Context, cfg config.Config) ([]string, error) {
	url := cfg.DatabaseURL.Reveal()
	applied, err := whsql.Migrate(ctx, url)
	done := make([]string, 0, len(applied)+3)
	for _, name := range applied {
		done = append(done, "applied migration "+name)
	}
	if err != nil {
		return done, migrationRights(err, url)
	}
	made, err := relay.Setup(ctx, url, cfg.Slot)
	if made == nil {
		made = []string{}
	}
	return append(done, made...), err
}
