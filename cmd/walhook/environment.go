package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/walhook/walhook/config"
)

// variable names the environment variable of a flag, in the way in which configuration keys have theirs:
// --forward-to is WALHOOK_FORWARD_TO.
func variable(flag string) string {
	return "WALHOOK_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// ownFlag reports whether a command understands the flag's variable itself: configuration keys and --config
// are package config's, and help is no setting.
func ownFlag(name string) bool {
	return name != "help" && name != "config" &&
		!slices.ContainsFunc(config.Keys(), func(k config.Key) bool { return k.Flag == name })
}

// variables lists the variables of all the commands' own flags. One environment serves every command, so
// that a variable which this command does not know is no mistake.
func variables(commands []*cobra.Command) []string {
	var names []string
	for _, c := range commands {
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if ownFlag(f.Name) {
				names = append(names, variable(f.Name))
			}
		})
		names = append(names, variables(c.Commands())...)
	}
	return names
}

// setFromEnvironment sets the command's own flags that the user did not give. An empty variable counts as
// not set, as it does for configuration keys.
func (a *app) setFromEnvironment(flags *pflag.FlagSet) error {
	environ := make(map[string]string, len(a.environ))
	for _, v := range a.environ {
		name, value, _ := strings.Cut(v, "=")
		environ[name] = value
	}
	var problems []error
	flags.VisitAll(func(f *pflag.Flag) {
		value := environ[variable(f.Name)]
		if value == "" || f.Changed || !ownFlag(f.Name) {
			return
		}
		if err := flags.Set(f.Name, value); err != nil {
			problems = append(problems, fmt.Errorf("%w: environment variable %s: %w", errUsage, variable(f.Name), err))
		}
	})
	return errors.Join(problems...)
}
