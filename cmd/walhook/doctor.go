package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/walhook/walhook/config"
	"github.com/walhook/walhook/relay"
	"github.com/walhook/walhook/relay/ops"
	whsql "github.com/walhook/walhook/sql"
)

// errFindings marks that doctor found an error.
var errFindings = errors.New("doctor found errors")

// diagnosis is what the command prints.
type diagnosis struct {
	Findings []ops.Finding `json:"findings"`
	Errors   int           `json:"errors"`
	Warnings int           `json:"warnings"`
}

type doctorOptions struct{ json, list, all, skipURLs bool }

func (a *app) doctorCommand() *cobra.Command {
	var o doctorOptions
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Check every prerequisite and risk, and say what mends it",
		Long: "Check the server, role, slot, publications, tables, subscriptions and receivers, the worst finding first, each with the\n" +
			"command that mends it. Nothing is changed, and no relay need run. It is best run as the relay is: by the same user, on the same\n" +
			"machine, with the same configuration. Exit code 3 when there is an error. With --json one object: findings, errors, warnings.",
		Args: usage(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if o.list {
				return a.listCodes(o)
			}
			cfg, err := a.load(c.Flags())
			if err != nil {
				return err
			}
			return a.doctor(c.Context(), cfg, o)
		},
	}
	configFlags(c, "database_url", "slot")
	c.Flags().BoolVar(&o.json, "json", false, "print one JSON object")
	c.Flags().BoolVar(&o.list, "list", false, "print the code, severity and subject of everything that is checked, and do nothing")
	c.Flags().BoolVar(&o.all, "all", false, "print what holds as well")
	c.Flags().BoolVar(&o.skipURLs, "skip-urls", false, "connect to no receiver")
	return c
}

// doctor examines and prints. What it finds is no failure of the command; only errors end it with errFindings.
func (a *app) doctor(ctx context.Context, cfg config.Config, o doctorOptions) error {
	found, err := diagnose(ctx, cfg, o.skipURLs)
	if err != nil {
		return err
	}
	d := diagnosis{Findings: found}
	for _, f := range found {
		switch f.Severity {
		case ops.SeverityError:
			d.Errors++
		case ops.SeverityWarning:
			d.Warnings++
		}
	}
	if o.json {
		err = a.printJSON(d)
	} else {
		_, err = io.WriteString(a.stdout, d.text(o.all))
	}
	if err == nil && d.Errors > 0 {
		err = fmt.Errorf("%w: %d", errFindings, d.Errors)
	}
	return err
}

// diagnose makes every check. That something is wrong is no error.
func diagnose(ctx context.Context, cfg config.Config, skipURLs bool) ([]ops.Finding, error) {
	options, err := examination(ctx, cfg)
	if err != nil {
		return nil, err
	}
	options.SkipURLs = skipURLs
	found := ops.Diagnose(ctx, options)
	if len(found) != 1 { // otherwise there is nobody to ask
		found = withProblems(found, relay.Inspect(ctx, options.URL, cfg.Slot))
	}
	return found, nil
}

// examination is what the configuration says about what to look at.
func examination(ctx context.Context, cfg config.Config) (ops.DoctorOptions, error) {
	o := ops.DoctorOptions{
		URL: cfg.DatabaseURL.Reveal(), Slot: cfg.Slot, Schema: whsql.Latest(), Timeout: cfg.Replication.ConnectTimeout,
		StatusInterval: cfg.Replication.StatusInterval, PartitionsAhead: cfg.Retention.PartitionsAhead,
		WALDiskSize: int64(cfg.Replication.WALDiskSize), Listen: cfg.Listen, API: cfg.API.Enabled, Token: cfg.API.Token != "",
		Keyset: cfg.Secrets.KeysetFile != "" || cfg.Secrets.Keyset != "", Proxied: cfg.Delivery.Proxy != "",
	}
	secrets, err := openSecrets(cfg)
	if err != nil {
		return o, err
	}
	o.ReadSecret = func(stored string, subscription uuid.UUID) error {
		_, err := secrets.Resolve(stored, subscription)
		return err
	}
	database, err := pgx.ParseConfig(o.URL)
	if err != nil {
		return o, fmt.Errorf("%w: database_url: %w", errUsage, err)
	}
	address, err := net.ResolveTCPAddr("tcp", cfg.Listen)
	if err != nil {
		return o, fmt.Errorf("%w: listen: %w", errUsage, err)
	}
	if address.IP == nil {
		address.IP = net.IPv4zero
	}
	sender, err := senderOptions(ctx, cfg, address, &database.Config, zerolog.Nop())
	o.Allowed = sender.Policy.Check
	return o, err
}

// withProblems adds what keeps the relay from running. These words win over those of a check with the same code, but
// for missing rights, which the check names one by one.
func withProblems(found []ops.Finding, problems []*relay.Problem) []ops.Finding {
	unknown := false // whether the rest could be looked at
	for _, p := range problems {
		code := string(p.Code)
		same := func(f ops.Finding) bool { return f.Code == code }
		if p.Code == relay.CodePrivileges && slices.ContainsFunc(found, func(f ops.Finding) bool { return same(f) && f.Severity == ops.SeverityError }) {
			continue
		}
		found = append(slices.DeleteFunc(found, same), finding(p))
		unknown = unknown || p.Err != nil || p.Code == relay.CodeSchema || p.Code == relay.CodeVersion || p.Code == relay.CodeStandby
	}
	for _, c := range ops.DoctorCodes {
		known := slices.ContainsFunc(found, func(f ops.Finding) bool { return f.Code == c.Code })
		if c.Check == "" && !known && !unknown {
			found = append(found, ops.Finding{Code: c.Code, Severity: ops.SeverityOK, What: c.Holds})
		}
	}
	return ops.Sorted(found)
}

// finding is what a problem of the relay's is to doctor: always an error, since the relay stops or halts, or needs a recovery.
func finding(p *relay.Problem) ops.Finding {
	f := ops.Finding{Code: string(p.Code), Severity: ops.SeverityError, What: p.What, Explanation: ops.DoctorCodeOf(string(p.Code)).Why, Remedy: p.Remedy}
	if p.Err != nil {
		f.What += ": " + p.Err.Error()
	}
	return f
}

// text groups the findings by severity, the worst first. Names of subscriptions and the like are foreign text.
func (d *diagnosis) text(all bool) string {
	var to strings.Builder
	holds := 0
	last := ops.Severity("")
	for _, f := range d.Findings {
		if f.Severity == ops.SeverityOK {
			holds++
			if !all {
				continue
			}
		}
		if f.Severity != last {
			last = f.Severity
			_, _ = fmt.Fprintf(&to, "%s\n", strings.ToUpper(string(f.Severity)))
		}
		_, _ = fmt.Fprintf(&to, "  %s: %s\n", f.Code, flat(f.What))
		if f.Explanation != "" {
			_, _ = fmt.Fprintf(&to, "      why:  %s\n", flat(f.Explanation))
		}
		if f.Remedy != "" {
			_, _ = fmt.Fprintf(&to, "      mend: %s\n", flat(f.Remedy))
		}
		if f.Severity != ops.SeverityOK {
			to.WriteString("\n")
		}
	}
	_, _ = fmt.Fprintf(&to, "%d errors, %d warnings; %d checks found nothing\n", d.Errors, d.Warnings, holds)
	return to.String()
}

func flat(text string) string { return strings.ReplaceAll(printable(text), "\n", " ") }

// listCodes prints the table of findings.
func (a *app) listCodes(o doctorOptions) error {
	if o.json {
		return a.printJSON(map[string]any{"codes": ops.DoctorCodes})
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "CODE\tSEVERITY\tWHAT IS CHECKED")
	for _, c := range ops.DoctorCodes {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\n", c.Code, c.Severity, c.Holds)
	}
	return w.Flush()
}
