package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/walhook/walhook/config"
	"github.com/walhook/walhook/relay/admin"
)

func (a *app) tokenCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "token",
		Short: "Create, list and revoke tokens of API and dashboard",
		Long: "Create, list and revoke tokens: who has one may use the REST API (Authorization: Bearer TOKEN) and log in to the dashboard,\n" +
			"as far as its scopes go: read looks at everything, manage changes webhooks and event types and includes read, publish\n" +
			"publishes events. The database has no token, only its hash. Changes take effect at once.",
		Aliases: []string{"tokens"},
		Args:    usage(cobra.NoArgs),
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.createTokenCommand(), a.listTokensCommand(), a.revokeTokenCommand())
	return c
}

// tokenOptions are the flags of walhook token create.
type tokenOptions struct {
	name, tenant string
	scopes       []string
	expires      time.Duration
	json         bool
}

func (a *app) createTokenCommand() *cobra.Command {
	var o tokenOptions
	c := &cobra.Command{
		Use:     "create --name NAME",
		Short:   "Make a token and print it, this once",
		Example: "  walhook token create --name dashboard --scope read,manage --expires-in 90d",
		Args:    usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			wanted, err := o.wanted(c)
			if err != nil {
				return err
			}
			return a.createToken(c, wanted, o.json)
		},
	}
	configFlags(c, "database_url")
	f := c.Flags()
	f.StringVar(&o.name, "name", "", "what it is for; of the valid tokens only one has the name")
	f.StringSliceVar(&o.scopes, "scope", []string{string(admin.ScopeRead)}, "what it may do, comma-separated: read, manage, publish")
	f.StringVar(&o.tenant, "tenant", "", "bind it to this tenant's rows (without the flag: all tenants)")
	f.Var((*periodFlag)(&o.expires), "expires-in", "for how long it is valid, as in 90d (without the flag: until it is revoked)")
	f.Lookup("expires-in").DefValue = ""
	f.BoolVar(&o.json, "json", false, "print one JSON object")
	return c
}

// wanted is the token that the flags describe.
func (o *tokenOptions) wanted(c *cobra.Command) (admin.NewToken, error) {
	n := admin.NewToken{Name: o.name, ExpiresIn: o.expires}
	switch {
	case o.name == "":
		return n, fmt.Errorf("%w: --name is not given: say what the token is for, as in --name dashboard", errUsage)
	case c.Flags().Changed("expires-in") && o.expires <= 0:
		return n, fmt.Errorf("%w: --expires-in %s is not in the future: give a duration as in 90d, or leave it out for a token that stays valid", errUsage, o.expires)
	}
	for _, name := range o.scopes {
		scope := admin.Scope(strings.TrimSpace(name))
		if !slices.Contains(admin.Scopes, scope) {
			return n, fmt.Errorf("%w: --scope %s is no scope: give read, manage or publish, comma-separated", errUsage, quote(name))
		}
		n.Scopes = append(n.Scopes, scope)
	}
	if c.Flags().Changed("tenant") {
		n.Tenant = &o.tenant // the empty one is a tenant too
	}
	return n, nil
}

// created is what walhook token create prints with --json.
type created struct {
	Secret string `json:"token"`
	admin.Token
}

func (a *app) createToken(c *cobra.Command, wanted admin.NewToken, asJSON bool) error {
	return a.onTokens(c, func(ctx context.Context, store *admin.Store) error {
		token, text, err := store.CreateToken(ctx, wanted)
		if err != nil {
			return err
		}
		if asJSON {
			return a.printJSON(created{text, token})
		}
		if _, err := fmt.Fprintln(a.stdout, text); err != nil {
			return err
		}
		_, err = fmt.Fprintf(a.stderr, "walhook: this is the token %s, shown only once: keep it where you keep passwords\n", quote(token.Name))
		return err
	})
}

func (a *app) revokeTokenCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "revoke ID|NAME",
		Short: "End a token at once",
		Args:  usage(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			return a.onTokens(c, func(ctx context.Context, store *admin.Store) error {
				token, err := store.RevokeToken(ctx, args[0])
				if err != nil {
					return err
				}
				return a.did(asJSON, "revoked", token.ID)
			})
		},
	}
	configFlags(c, "database_url")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return c
}

// onTokens calls do with the tokens of the configured database.
func (a *app) onTokens(c *cobra.Command, do func(context.Context, *admin.Store) error) error {
	return a.onDatabase(c, commandTimeout, func(ctx context.Context, _ config.Config, conn *pgx.Conn) error {
		return tokenError(do(ctx, admin.New(conn, admin.Options{})))
	})
}

// tokenError marks a value that was refused as wrong usage.
func tokenError(err error) error {
	var refused *admin.Error
	if errors.As(err, &refused) && refused.Kind == admin.Invalid {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	return err
}
