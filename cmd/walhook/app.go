package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/walhook/walhook/config"
	"github.com/walhook/walhook/relay"
)

// Exit codes of every command.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2 // wrong usage, configuration or set-up
	exitFound  = 3 // doctor found an error
)

// errUsage marks errors whose remedy lies with the caller.
var errUsage = errors.New("usage")

// app is the process as commands see it: results go to stdout, logs to stderr.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	environ        []string
	configPath     string
	knownVariables []string                // of flags that stand for no configuration key
	hangups        func() <-chan os.Signal // begins to listen for SIGHUP; nil: nobody does
}

// execute runs the command line and returns the exit code.
func (a *app) execute(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	_, _ = fmt.Fprintf(a.stderr, "walhook: %v\n", err)
	if hint := rightsHint(err); hint != "" {
		_, _ = fmt.Fprintf(a.stderr, "walhook: %s\n", hint)
	}
	if errors.Is(err, errUsage) || errors.Is(err, relay.ErrSetup) || refused(err) {
		return exitUsage
	}
	if errors.Is(err, errFindings) {
		return exitFound
	}
	return exitFailed
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "walhook",
		Short: "Relays events from a Postgres outbox to webhooks",
		Long: "walhook tails Postgres logical replication and delivers each committed row of outbox.events to the webhooks\n" +
			"in outbox.subscriptions. Configuration: flags over environment (WALHOOK_..., DATABASE_URL) over walhook.yaml.",
		SilenceUsage: true, SilenceErrors: true,
		Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.PersistentFlags().StringVar(&a.configPath, "config", "", "configuration file (default walhook.yaml, when it is there)")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fmt.Errorf("%w: %w (see %s --help)", errUsage, err, c.CommandPath())
	})
	root.AddCommand(a.commands()...)
	a.knownVariables = variables(root.Commands())
	root.PersistentPreRunE = func(c *cobra.Command, _ []string) error { return a.setFromEnvironment(c.Flags()) }
	return root
}

// usage marks a wrong number of arguments as wrong usage.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return fmt.Errorf("%w: %w (see %s --help)", errUsage, err, c.CommandPath())
		}
		return nil
	}
}

// logFlags are the keys that every command that logs understands.
var logFlags = []string{"log_level", "log_format"}

// configFlags registers flags for configuration keys.
func configFlags(c *cobra.Command, names ...string) { config.Flags(c.Flags(), names...) }

// load reads the configuration: flags over environment over file over defaults.
func (a *app) load(fs *pflag.FlagSet) (config.Config, error) {
	cfg, err := config.Load(a.configPath, a.environ, a.knownVariables...)
	if err == nil {
		err = cfg.SetFlags(fs)
	}
	if err == nil {
		err = cfg.Validate()
	}
	if err != nil {
		return cfg, fmt.Errorf("%w: %w", errUsage, err)
	}
	return cfg, nil
}

// logger writes to stderr, readably on a terminal and as JSON otherwise.
func (a *app) logger(cfg config.Config) zerolog.Logger {
	out, level := a.logOutput(cfg)
	return zerolog.New(out).Level(level).With().Timestamp().Logger()
}

// logOutput is where and from which level on messages are written.
func (a *app) logOutput(cfg config.Config) (io.Writer, zerolog.Level) {
	level, err := zerolog.ParseLevel(cfg.LogLevel)
	if err != nil {
		level = zerolog.InfoLevel // Validate has refused it already
	}
	if cfg.LogFormat == "console" || cfg.LogFormat == "auto" && isTerminal(a.stderr) {
		return zerolog.ConsoleWriter{Out: a.stderr, TimeFormat: "15:04:05.000", NoColor: !isTerminal(a.stderr)}, level
	}
	return a.stderr, level
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// printJSON writes one object.
func (a *app) printJSON(v any) error {
	e := json.NewEncoder(a.stdout)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	return nil
}
