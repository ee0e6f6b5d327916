package config

import (
	"errors"
	"fmt"

	"github.com/spf13/pflag"
)

// Flags registers a flag for each named key, or for all when none is named. Values are checked for form as
// they are parsed and applied by SetFlags, because the file and the environment, over which flags win, can
// only be loaded once flags are known. It panics on an unknown key, which is the program's mistake.
func Flags(fs *pflag.FlagSet, names ...string) {
	if len(names) == 0 {
		names = keyNames()
	}
	for _, name := range names {
		k, ok := find(name)
		if !ok {
			panic(fmt.Sprintf("config: flags for the unknown key %q", name))
		}
		usage := k.Help
		if k.Limits != "" {
			usage += " (" + k.Limits + ")"
		}
		fs.Var(&flag{key: k, text: k.Default}, k.Flag, usage)
		if k.Type == "bool" {
			fs.Lookup(k.Flag).NoOptDefVal = "true" // --delivery-allow-http alone means true
		}
	}
}

// SetFlags applies the flags that the user gave. Flags that Flags did not register are left alone.
func (c *Config) SetFlags(fs *pflag.FlagSet) error {
	var problems []error
	fs.Visit(func(given *pflag.Flag) {
		f, ok := given.Value.(*flag)
		if !ok {
			return
		}
		if err := c.Set(f.key.Name, f.text); err != nil {
			problems = append(problems, fmt.Errorf("flag --%s: %w", given.Name, err))
		}
	})
	return errors.Join(problems...)
}

// flag holds one given value until SetFlags.
type flag struct {
	key  Key
	text string
}

// Set checks the value's form.
func (f *flag) Set(text string) error {
	var scratch Config
	if err := scratch.Set(f.key.Name, text); err != nil {
		return err
	}
	f.text = text
	return nil
}

// String is called by help and completion too, so that it shows no password.
func (f *flag) String() string {
	if f.key.secret {
		return Secret(f.text).String()
	}
	return f.text
}

// Type is what help shows for the value.
func (f *flag) Type() string { return f.key.Type }
