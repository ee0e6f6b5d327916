package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/walhook/walhook/relay/admin"
)

func (a *app) listTokensCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List tokens, the newest first, revoked ones as well",
		Args:  usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.onTokens(c, func(ctx context.Context, store *admin.Store) error {
				tokens, err := store.Tokens(ctx)
				if err != nil {
					return err
				}
				if asJSON {
					return a.printJSON(map[string]any{"tokens": tokens})
				}
				return writeTokens(a.stdout, tokens, time.Now())
			})
		},
	}
	configFlags(c, "database_url")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return c
}

// writeTokens prints a table. Names and tenants are foreign text.
func writeTokens(to io.Writer, tokens []admin.Token, now time.Time) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "ID\tNAME\tTOKEN\tSCOPES\tTENANT\tSTATE\tEXPIRES\tLAST USED")
	for i := range tokens {
		t := &tokens[i]
		tenant := "all"
		if t.Tenant != nil {
			tenant = quote(*t.Tenant)
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s…\t%s\t%s\t%s\t%s\t%s\n", t.ID, oneLine(t.Name), t.Hint, scopesText(t.Scopes), tenant,
			tokenState(t, now), momentText(t.ExpiresAt), momentText(t.LastUsedAt))
	}
	return w.Flush()
}

func scopesText(scopes []admin.Scope) string {
	names := make([]string, len(scopes))
	for i, s := range scopes {
		names[i] = string(s)
	}
	return strings.Join(names, ",")
}

// tokenState says whether a token is good for anything.
func tokenState(t *admin.Token, now time.Time) string {
	switch {
	case t.RevokedAt != nil:
		return "revoked"
	case t.ExpiresAt != nil && !t.ExpiresAt.After(now):
		return "expired"
	}
	return "valid"
}

// momentText is a time, or never.
func momentText(t *time.Time) string {
	if t == nil {
		return "never"
	}
	return t.UTC().Format(time.RFC3339)
}
