package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	whsql "github.com/walhook/walhook/sql"
)

func (a *app) versionCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "version", Short: "Print the version", Args: usage(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			if asJSON {
				return a.printJSON(map[string]any{"version": version, "go": runtime.Version(), "schema": whsql.Latest()})
			}
			_, err := fmt.Fprintf(a.stdout, "walhook %s (%s, schema %d)\n", version, runtime.Version(), whsql.Latest())
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return c
}
