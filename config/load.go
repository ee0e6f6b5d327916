package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sort"
	"strings"

	"github.com/caarlos0/env/v11"
)

const (
	// File is what Load reads from the working directory when it is not told a path.
	File = "walhook.yaml"
	// FileVariable is the environment variable that names the file instead.
	FileVariable = prefix + "CONFIG"
	// testPrefix begins variables that belong to the tests.
	testPrefix = prefix + "TEST_"
	// maxFile bounds a configuration file, in bytes.
	maxFile = 1 << 20
)

// Load returns the defaults, overlaid by the file, overlaid by the environment (as os.Environ returns it).
//
// The file at path must exist. When path is empty, the variable WALHOOK_CONFIG names it, and without that
// walhook.yaml is read from the working directory if it is there.
//
// Every setting has its variable (Key.Env); DATABASE_URL is understood where WALHOOK_DATABASE_URL is not
// set. An empty variable counts as not set. Any other variable that begins with WALHOOK_ is an error, except
// WALHOOK_TEST_… and the known ones, which belong to the caller.
//
// The error joins all problems, each with where it is, the value and the remedy; no error shows the
// database URL. Limits are not checked: flags come first, then Validate.
func Load(path string, environ []string, known ...string) (Config, error) {
	variables := env.ToMap(environ)
	c := Default()
	err := errors.Join(
		c.loadFile(path, variables[FileVariable]),
		c.loadEnvironment(variables, known),
	)
	return c, err
}

// loadFile finds and applies the file.
func (c *Config) loadFile(path, fromEnvironment string) error {
	optional := false
	if path == "" {
		path = fromEnvironment
	}
	if path == "" {
		path, optional = File, true
	}
	text, err := readFile(path)
	if optional && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	return c.setYAML(path, text)
}

// readFile reads a file of sane size without a byte order mark.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s has %d bytes, the most is %d: is it the right file?", path, info.Size(), maxFile)
	}
	text, err := os.ReadFile(path)
	return bytes.TrimPrefix(text, []byte("\ufeff")), err
}

// loadEnvironment applies the variables.
func (c *Config) loadEnvironment(variables map[string]string, known []string) error {
	var problems []error
	if url := variables["DATABASE_URL"]; url != "" {
		c.DatabaseURL = Secret(url)
	}
	for _, k := range keys {
		value := variables[k.Env]
		if value == "" {
			continue
		}
		if err := c.Set(k.Name, value); err != nil {
			problems = append(problems, fmt.Errorf("environment variable %s: %w", k.Env, err))
		}
	}
	return errors.Join(append(problems, unknownVariables(variables, known)...)...)
}

// unknownVariables finds what looks like a setting and is none: a misspelt variable would otherwise be a
// setting that silently does nothing.
func unknownVariables(variables map[string]string, known []string) []error {
	names := append([]string{FileVariable}, known...)
	for _, k := range keys {
		names = append(names, k.Env)
	}
	var problems []error
	for name := range variables {
		if !strings.HasPrefix(name, prefix) || strings.HasPrefix(name, testPrefix) || slices.Contains(names, name) {
			continue
		}
		problems = append(problems, fmt.Errorf("environment variable %s is no setting: %s", name, suggest(name, names, "unset it")))
	}
	sort.Slice(problems, func(i, j int) bool { return problems[i].Error() < problems[j].Error() })
	return problems
}
