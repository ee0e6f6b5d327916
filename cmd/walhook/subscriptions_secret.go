package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/walhook/walhook/config"
	"github.com/walhook/walhook/relay/delivery"
	"github.com/walhook/walhook/relay/secret"
	"github.com/walhook/walhook/relay/webhook"
)

const (
	// maxSecretText bounds what is read of standard input, in bytes.
	maxSecretText = 64 << 10
	// shortSecret is less than what HMAC-SHA256 should have for a key, in bytes (Standard Webhooks 1.0.0 asks for 24).
	shortSecret = 24
)

// secretFlags are the ways to give a secret. At most one of them is taken.
type secretFlags struct {
	value                             string
	stdin, generate, none, noPrevious bool
	empty                             func() bool // --secret is given, as nothing
}

func (s *secretFlags) register(c *cobra.Command, update bool) {
	configFlags(c, "secrets.keyset_file", "secrets.keyset")
	f := c.Flags()
	f.StringVar(&s.value, "secret", "", "secret to sign with, or env:NAME or file:/path (better given as WALHOOK_SECRET)")
	f.BoolVar(&s.stdin, "secret-stdin", false, "read the secret from standard input")
	f.BoolVar(&s.generate, "generate-secret", false, "make a random secret and print it, this once")
	s.empty = func() bool { return s.value == "" && f.Changed("secret") }
	if update {
		f.BoolVar(&s.none, "no-secret", false, "sign no more")
		f.BoolVar(&s.noPrevious, "no-previous-secret", false, "forget the secret before the last rotation now")
	}
}

func (s *secretFlags) given() bool {
	return s.empty() || s.value != "" || s.stdin || s.generate || s.none || s.noPrevious
}

// removals are the columns that are emptied.
func (s *secretFlags) removals() []assignment {
	var list []assignment
	if s.none {
		list = append(list, assignment{column: "secret"})
	}
	if s.none || s.noPrevious {
		list = append(list, assignment{column: "previous_secret"}, assignment{column: "previous_secret_expires_at"})
	}
	return list
}

// newSecret is a secret that a command was given or made.
type newSecret struct {
	value     string // the secret itself, or a reference
	generated bool
	public    string // what receivers verify with, when that is not the secret
}

// readSecret takes the secret from where the flags say; nil when they don't.
func (a *app) readSecret(s *secretFlags, signature string) (*newSecret, error) {
	ways := 0
	for _, way := range []bool{s.value != "", s.stdin, s.generate, s.none} {
		if way {
			ways++
		}
	}
	switch {
	case s.empty(): // as "$SECRET" is when the variable is not set: nobody means to be unsigned by that
		return nil, fmt.Errorf("%w: --secret is empty: give one, or leave the flag out", errUsage)
	case ways > 1:
		return nil, fmt.Errorf("%w: --secret (or WALHOOK_SECRET), --secret-stdin, --generate-secret and --no-secret exclude each other: give one", errUsage)
	case s.generate:
		return generateSecret(signature)
	case s.stdin:
		return a.secretFromStdin()
	case s.value != "":
		return &newSecret{value: s.value}, nil
	}
	return nil, nil
}

// secretFromStdin reads a secret and drops the line break behind it.
func (a *app) secretFromStdin() (*newSecret, error) {
	text, err := io.ReadAll(io.LimitReader(a.stdin, maxSecretText+1))
	if err != nil {
		return nil, fmt.Errorf("read the secret from standard input: %w", err)
	}
	value := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	if value == "" || len(text) > maxSecretText {
		return nil, fmt.Errorf("%w: standard input has %d bytes for the secret: give 1 to 1024", errUsage, len(value))
	}
	return &newSecret{value: value}, nil
}

// generateSecret makes a secret in the form of Standard Webhooks (1.0.0, "Signature scheme"), which every scheme
// takes: whsec_ and the base64 of 32 random bytes, or whsk_ and that of an Ed25519 private key.
func generateSecret(signature string) (*newSecret, error) {
	if signature == "standard-ed25519" {
		public, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("make a key: %w", err)
		}
		return &newSecret{generated: true, value: "whsk_" + base64.StdEncoding.EncodeToString(private),
			public: "whpk_" + base64.StdEncoding.EncodeToString(public)}, nil
	}
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return nil, fmt.Errorf("make a secret: %w", err)
	}
	return &newSecret{generated: true, value: "whsec_" + base64.StdEncoding.EncodeToString(key)}, nil
}

// assignment is what to store: references as they are, everything else encrypted when there is a keyset.
func (n *newSecret) assignment(cfg config.Config, id uuid.UUID) ([]assignment, error) {
	if n == nil {
		return nil, nil
	}
	resolver, err := openSecrets(cfg)
	if err != nil {
		return nil, err
	}
	stored, err := seal(resolver)(n.value, id)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUsage, err)
	}
	return []assignment{{column: "secret", value: stored}}, nil
}

// check refuses a secret that the scheme cannot sign with. What a reference leads to, only the relay knows.
func (n *newSecret) check(signature string) error {
	if n == nil || secret.IsReference(n.value) {
		return nil
	}
	// Whatever else there is to check, the database has.
	set := delivery.Settings{URL: "https://localhost/", Signature: signature, Secret: delivery.Secret(n.value)}
	if err := webhook.Check(&set); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	return nil
}

// warn tells of a secret that can be guessed.
func (a *app) warn(n *newSecret) {
	if n != nil && !secret.IsReference(n.value) && len(n.value) < shortSecret {
		_, _ = fmt.Fprintf(a.stderr, "walhook: the secret has %d bytes, which may be guessed: %d or more random ones are safe, and --generate-secret makes them\n",
			len(n.value), shortSecret)
	}
}

func (a *app) rotateSecretCommand() *cobra.Command {
	var o chosen
	var secrets secretFlags
	var overlap time.Duration
	c := &cobra.Command{
		Use:   "rotate-secret SUBSCRIPTION",
		Short: "Give a subscription a new secret; for a while the old one signs as well",
		Long: "Give a subscription a new secret. Until --overlap is over, requests are signed with the old one as well. Without a secret\n" +
			"one is made and printed, this once.",
		Args: usage(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			if overlap < 0 {
				return fmt.Errorf("%w: --overlap %s is negative: give 0s, which ends the old secret at once, or more", errUsage, overlap)
			}
			if !secrets.given() {
				secrets.generate = true
			}
			return a.rotateSecret(c, &o, args[0], &secrets, overlap)
		},
	}
	chosenFlags(c, &o)
	secrets.register(c, false)
	c.Flags().Var((*periodFlag)(&overlap), "overlap", "how long the old secret signs as well")
	overlap = 24 * time.Hour
	c.Flags().Lookup("overlap").DefValue = "24h"
	return c
}

func (a *app) rotateSecret(c *cobra.Command, o *chosen, idOrName string, secrets *secretFlags, overlap time.Duration) error {
	return a.onDatabase(c, commandTimeout, func(ctx context.Context, cfg config.Config, conn *pgx.Conn) error {
		id, err := o.find(ctx, c, conn, idOrName)
		if err != nil {
			return err
		}
		made, stored, err := a.secretFor(ctx, cfg, conn, id, nil, secrets)
		if err != nil {
			return err
		}
		return a.write(ctx, conn, written{id: id, json: o.json, secret: made, given: stored}, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "SELECT outbox.rotate_secret($1, $2, $3)", id, stored[0].value, overlap); err != nil {
				return fmt.Errorf("rotate secret: %w", err)
			}
			return nil
		})
	})
}

// periodFlag is a duration as configuration has them: 30s, 24h or 7d.
type periodFlag time.Duration

// Set reads the duration.
func (p *periodFlag) Set(text string) error {
	d, err := config.ParseDuration(text)
	*p = periodFlag(d)
	return err
}

// String is the duration as Go writes it.
func (p *periodFlag) String() string { return time.Duration(*p).String() }

// Type is what help shows for the value.
func (p *periodFlag) Type() string { return "duration" }
