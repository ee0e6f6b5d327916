package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/walhook/walhook/config"
	"github.com/walhook/walhook/relay/secret"
)

// openSecrets makes what resolves and encrypts secrets, with the configured keyset if there is one.
func openSecrets(cfg config.Config) (*secret.Resolver, error) {
	o := secret.Options{KeysetFile: cfg.Secrets.KeysetFile}
	var err error
	switch {
	case o.KeysetFile != "":
		if o.Keyset, err = secret.ReadKeyset(o.KeysetFile); err != nil {
			return nil, fmt.Errorf("%w: secrets.keyset_file: %w", errUsage, err)
		}
	case cfg.Secrets.Keyset != "":
		if o.Keyset, err = secret.ParseKeyset([]byte(cfg.Secrets.Keyset.Reveal())); err != nil {
			return nil, fmt.Errorf("%w: secrets.keyset: %w", errUsage, err)
		}
	}
	return secret.NewResolver(o), nil
}

func (a *app) secretsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "secrets",
		Short: "Keep the secrets of subscriptions encrypted",
		Long: "Keep the secrets of subscriptions encrypted in the database, with a keyset that the relay has as secrets.keyset_file or\n" +
			"WALHOOK_SECRETS_KEYSET. To begin: generate-keyset, give it to every relay and restart them, then reencrypt --plain.\n" +
			"To change the key: rotate-keyset, bring the file to every relay, then reencrypt.",
		Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.generateKeysetCommand(), a.rotateKeysetCommand(), a.reencryptCommand())
	return c
}

func (a *app) generateKeysetCommand() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:     "generate-keyset",
		Short:   "Print a new keyset, or write it to a file",
		Long:    "Print a new keyset of one AES256-GCM key as JSON. It is a secret: with --out it goes into a file that only you may read.",
		Example: "  walhook secrets generate-keyset --out /etc/walhook/keyset.json",
		Args:    usage(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			k, err := secret.NewKeyset()
			if err != nil {
				return err
			}
			if out != "" {
				if err := k.Create(out); err != nil {
					return err
				}
				_, err := fmt.Fprintf(a.stdout, "wrote a keyset to %s: its primary key is %d\n", out, k.Primary())
				return err
			}
			text, err := k.Reveal()
			if err != nil {
				return err
			}
			_, err = a.stdout.Write(text)
			return err
		},
	}
	c.Flags().StringVar(&out, "out", "", "write it to this file, which must not be there yet")
	return c
}

func (a *app) rotateKeysetCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "rotate-keyset FILE",
		Short: "Add a key to a keyset's file and encrypt with it from now on",
		Long: "Add a key to a keyset's file and encrypt with it from now on; the others go on decrypting. Running relays read the file\n" +
			"again when they meet a new key. Bring the file to all of them before a secret is encrypted with it; then run reencrypt.",
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			k, err := secret.ReadKeyset(args[0])
			if err != nil {
				return fmt.Errorf("%w: %w", errUsage, err)
			}
			rotated, err := k.Rotated()
			if err != nil {
				return err
			}
			if err := rotated.Replace(args[0]); err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(map[string]any{"file": args[0], "primary": rotated.Primary(), "keys": rotated.Len()})
			}
			_, err = fmt.Fprintf(a.stdout, "the primary key of %s is now %d, one of %d\n", args[0], rotated.Primary(), rotated.Len())
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return c
}
