package config

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Validate reports everything that a relay could not run with: each problem with the key, the value and the
// remedy, joined in the order of Config. It opens nothing and asks nobody.
func (c *Config) Validate() error {
	var problems []error
	for _, k := range keys {
		value := reflect.ValueOf(*c).FieldByIndex(k.field)
		if err := checkLimits(k, value); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", k.Name, err))
		}
		if check := checks[k.Name]; check != nil {
			if err := check(plain(value)); err != nil {
				problems = append(problems, fmt.Errorf("%s: %w", k.Name, err))
			}
		}
	}
	if c.Secrets.KeysetFile != "" && c.Secrets.Keyset != "" {
		problems = append(problems, errors.New("secrets.keyset: secrets.keyset_file is set as well: give one of them"))
	}
	if c.MetricsListen != "" && c.MetricsListen == c.Listen && !strings.HasSuffix(c.Listen, ":0") {
		problems = append(problems, fmt.Errorf("metrics_listen: %q is listen as well: give another address, or leave metrics_listen out for both on one", c.MetricsListen))
	}
	return errors.Join(problems...)
}

// plain is a value as it is checked: text as it is, secrets included, anything else as it is written.
func plain(value reflect.Value) string {
	if value.Kind() == reflect.String {
		return value.String()
	}
	return format(value)
}

// checkLimits compares a value with what the key's tags allow.
func checkLimits(k Key, value reflect.Value) error {
	if choices := strings.Fields(k.tag.Get("oneof")); len(choices) > 0 && !slices.Contains(choices, plain(value)) {
		return fmt.Errorf("%q is no choice: give %s", plain(value), k.Limits)
	}
	least, has := k.tag.Lookup("min")
	if !has {
		return nil
	}
	low, high, err := parseLimits(value.Type(), least, k.tag.Get("max"))
	if err != nil {
		return err
	}
	switch {
	case cmp.Compare(value.Int(), low) < 0:
		return fmt.Errorf("%s is too small: give %s", format(value), k.Limits)
	case cmp.Compare(value.Int(), high) > 0:
		return fmt.Errorf("%s is too large: give %s", format(value), k.Limits)
	}
	return nil
}

// parseLimits reads the limits as values of that type are read.
func parseLimits(t reflect.Type, least, most string) (low, high int64, err error) {
	parse := func(s string) (int64, error) {
		v, err := parsers[t](s)
		if err != nil {
			return 0, fmt.Errorf("limit: %w", err)
		}
		return reflect.ValueOf(v).Int(), nil
	}
	if low, err = parse(least); err != nil {
		return 0, 0, err
	}
	high, err = parse(most)
	return low, high, err
}

// checks are what limits cannot say.
var checks = map[string]func(string) error{
	"database_url": checkDatabaseURL,
	"slot":         checkSlot,
	"listen":       checkListen,

	"path_prefix":    checkPathPrefix,
	"metrics_listen": checkMetricsListen,
	"api.token":      checkAPIToken,

	"delivery.origin":         checkOrigin,
	"delivery.allow_networks": checkNetworks,
	"delivery.allow_ports":    checkPorts,
	"delivery.nat64_prefixes": checkNAT64,
	"delivery.proxy":          checkProxy,
}

// checkDatabaseURL wants either of libpq's forms. It never shows the value.
func checkDatabaseURL(url string) error {
	switch {
	case url == "":
		return errors.New("not set: give it as DATABASE_URL, WALHOOK_DATABASE_URL, --database-url or in walhook.yaml, " +
			"as in postgres://user:password@host:5432/database")
	case strings.HasPrefix(url, "postgres://"), strings.HasPrefix(url, "postgresql://"):
		return nil
	case !strings.Contains(url, "://") && strings.Contains(url, "="):
		return nil
	}
	return errors.New("the value is no Postgres URL: write postgres://user:password@host:5432/database or host=… user=… dbname=…")
}

// slotName is what Postgres allows
// (https://www.postgresql.org/docs/current/warm-standby.html#STREAMING-REPLICATION-SLOTS-MANIPULATION).
var slotName = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

// checkSlot holds the slot's name to Postgres's rule.
func checkSlot(name string) error {
	if !slotName.MatchString(name) {
		return fmt.Errorf("%q is no slot name: use 1 to 63 of a-z, 0-9 and _", name)
	}
	return nil
}

var dnsName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$`)

// checkOrigin wants a DNS name: it becomes a header (CloudEvents HTTP 1.1 Web Hooks, section 4.1.1).
func checkOrigin(name string) error {
	if len(name) > 253 || !dnsName.MatchString(name) {
		return fmt.Errorf("%q is no DNS name: write one as in relay.example.com", name)
	}
	return nil
}

// checkListen wants host:port. Port 0 lets the system choose.
func checkListen(address string) error {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q is no address: write host:port, as in 127.0.0.1:8080", address)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q has no port from 0 to 65535: write host:port, as in 127.0.0.1:8080", address)
	}
	return nil
}
