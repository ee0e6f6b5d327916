package config_test

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/config"
)

func TestKeysAreComplete(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range config.Keys() {
		require.NotEmpty(t, k.Help, k.Name)
		require.NotContains(t, k.Help, "\n", k.Name)
		require.NotContains(t, k.Name, "..")
		if k.Type != "text" {
			require.NotEmpty(t, k.Limits, k.Name)
		}
		if !slices.Contains([]string{"database_url", "delivery.proxy", "path_prefix", "metrics_listen", "api.token"}, k.Name) && !strings.HasPrefix(k.Name, "secrets.") {
			require.NotEmpty(t, k.Default, k.Name)
		}
		for _, name := range []string{k.Name, k.Env, k.Flag} {
			require.False(t, seen[name] && strings.ContainsAny(name, "._-"), "%s stands for two settings", name)
			seen[name] = true
		}
	}
	require.Len(t, config.Keys(), 43)
	require.True(t, seen["retention.events"] && seen["WALHOOK_RETENTION_EVENTS"] && seen["retention-events"])
}

func TestKeysCannotBeChanged(t *testing.T) {
	config.Keys()[0].Name = "changed"
	require.Equal(t, "database_url", config.Keys()[0].Name)
}

func TestSetAndGet(t *testing.T) {
	c := config.Default()
	require.NoError(t, c.Set("retention.events", "1d"))
	require.Equal(t, 24*time.Hour, c.Retention.Events)
	require.EqualError(t, c.Set("retention.event", "1d"), "retention.event: unknown key: did you mean retention.events?")
	require.EqualError(t, c.Set("nothing", "1d"), "nothing: unknown key: remove it")
	require.EqualError(t, c.Set("listen", ""), "listen: the value is empty: give one or leave the key out")
	_, ok := c.Get("nothing")
	require.False(t, ok)
	value, ok := c.Get("retention.events")
	require.True(t, ok)
	require.Equal(t, "24h", value)
}

func TestFlags(t *testing.T) {
	fs := pflag.NewFlagSet("walhook", pflag.ContinueOnError)
	config.Flags(fs)
	fs.Bool("json", false, "not a setting")
	for _, k := range config.Keys() {
		require.NotNil(t, fs.Lookup(k.Flag), k.Flag)
		require.Equal(t, k.Default, fs.Lookup(k.Flag).DefValue)
	}
	require.NoError(t, fs.Parse([]string{"--json", "--listen", ":9090", "--retention-events=1d", "--database-url", "postgres://relay:s3cret@db/x"}))
	require.NotContains(t, fs.FlagUsages(), "s3cret")
	require.NotContains(t, fs.Lookup("database-url").Value.String(), "s3cret")

	c, err := config.Load("testdata/good/full.yaml", []string{"WALHOOK_LISTEN=:7070", "WALHOOK_SLOT=env"})
	require.NoError(t, err)
	require.NoError(t, c.SetFlags(fs))
	require.Equal(t, ":9090", c.Listen, "a flag wins over the environment")
	require.Equal(t, "env", c.Slot, "the environment wins over the file")
	require.Equal(t, "warn", c.LogLevel, "the file wins over the default")
	require.Equal(t, 24*time.Hour, c.Retention.Events)
	require.Equal(t, "postgres://relay:s3cret@db/x", c.DatabaseURL.Reveal())
}

func TestFlagsExplainThemselves(t *testing.T) {
	fs := pflag.NewFlagSet("walhook", pflag.ContinueOnError)
	config.Flags(fs, "record.interval", "listen")
	require.Nil(t, fs.Lookup("slot"))
	require.Contains(t, fs.FlagUsages(), "--record-interval duration ")
	require.EqualError(t, fs.Parse([]string{"--record-interval", "fast"}),
		`invalid argument "fast" for "--record-interval" flag: record.interval: "fast" is not a duration: write it as 100ms, 30s, 1h30m or 7d`)
	require.Error(t, fs.Parse([]string{"--listen", ""}))
	require.PanicsWithValue(t, `config: flags for the unknown key "colour"`, func() { config.Flags(fs, "colour") })
}

func TestSecretIsNotPrinted(t *testing.T) {
	for url, want := range map[string]string{
		"": "",
		"postgres://relay:s3cret@db:5432/clinic?sslmode=require": "postgres://relay:redacted@db:5432/clinic?sslmode=require",
		"postgres://relay@db/clinic":                             "postgres://relay@db/clinic",
		"postgres://db/clinic?user=relay&password=s3cret":        "postgres://db/clinic?password=redacted&user=relay",
		"postgres://relay@db/clinic?sslpassword=s3cret":          "postgres://relay@db/clinic?sslpassword=redacted",
		"postgres://relay:s3cr@et@db/clinic":                     "postgres://relay:redacted@db/clinic",
		"postgres://relay:s3cret@a:5432,b:5432/clinic":           "postgres://relay:redacted@a:5432,b:5432/clinic",
		"postgres://relay:12/s3cret@db/clinic":                   "[redacted]",
		"postgres://relay:12?s3cret@db/clinic":                   "[redacted]",
		"postgres://relay:12#s3cret@db/clinic":                   "[redacted]",
		"postgres://relay:s3cret%zz@db/clinic":                   "[redacted]",
		"host=db user=relay password=s3cret":                     "[redacted]",
		"relay:s3cret@db":                                        "[redacted]",
		"s3cret":                                                 "[redacted]",
		"//s3cret/and/more":                                      "[redacted]",
		"token://s3cret":                                         "[redacted]",
	} {
		s := config.Secret(url)
		require.Equal(t, want, s.String())
		require.Equal(t, url, s.Reveal())
		require.Equal(t, want, config.Secret(want).String(), "redacting twice changes nothing")

		c := config.Default()
		c.DatabaseURL = s
		encoded, err := json.Marshal(c)
		require.NoError(t, err)
		printed := string(encoded) + fmt.Sprintf("%v %+v %#v %q %x %X", c, c, c, s, s, s) + fmt.Sprint(&c, c.Redacted())
		require.NotContains(t, printed, "s3cret")
		require.NotContains(t, printed, fmt.Sprintf("%x", "s3cret"))
		require.NotContains(t, c.Redacted().DatabaseURL.Reveal(), "s3cret")
		require.Equal(t, url, c.DatabaseURL.Reveal(), "the original stays usable")
	}
}

func TestKeysetIsNeverPrinted(t *testing.T) {
	const keyset = `{"primaryKeyId": 1, "key": [{"keyData": {"value": "s3cret"}}]}`
	c := config.Default()
	require.NoError(t, c.Set("secrets.keyset", keyset))
	require.Equal(t, keyset, c.Secrets.Keyset.Reveal())
	encoded, err := json.Marshal(c)
	require.NoError(t, err)
	require.NotContains(t, string(encoded)+fmt.Sprintf("%v %+v %#v", c, c, c)+c.Redacted().Secrets.Keyset.Reveal(), "s3cret")
	printed, _ := c.Get("secrets.keyset")
	require.Equal(t, "[redacted]", printed)

	fs := pflag.NewFlagSet("walhook", pflag.ContinueOnError)
	config.Flags(fs)
	require.NoError(t, fs.Parse([]string{"--secrets-keyset", keyset}))
	require.NotContains(t, fs.Lookup("secrets-keyset").Value.String(), "s3cret")
}

func TestOneKeyset(t *testing.T) {
	c := config.Default()
	c.DatabaseURL = "postgres://db"
	c.Secrets.Keyset = "{}"
	require.NoError(t, c.Validate())
	c.Secrets.KeysetFile = "/keyset.json"
	require.EqualError(t, c.Validate(), "secrets.keyset: secrets.keyset_file is set as well: give one of them")
}

func TestParseDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0s": 0, "100ms": 100 * time.Millisecond, "1h30m": 90 * time.Minute, "7d": 168 * time.Hour, "1d12h": 36 * time.Hour, "-1s": -time.Second,
	} {
		got, err := config.ParseDuration(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "d", "7", "7x", "-7d", "1.5d", "1d-2h", "12h1d", "1d1d", "7 d", "106752d", "106751d24h", "99999999999999999999d"} {
		_, err := config.ParseDuration(text)
		require.EqualError(t, err, fmt.Sprintf("%q is not a duration: write it as 100ms, 30s, 1h30m or 7d", text))
	}
}

func TestParseBytes(t *testing.T) {
	for text, want := range map[string]config.Bytes{
		"0": 0, "1048576": 1 << 20, "32MiB": 32 << 20, "32MB": 32e6, "32 mib": 32 << 20, "1GiB": 1 << 30, "1gb": 1e9, "5KiB": 5 << 10, "5kB": 5000, "7B": 7,
		"9223372036854775807": math.MaxInt64,
	} {
		got, err := config.ParseBytes(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
		again, err := config.ParseBytes(got.String())
		require.NoError(t, err, got.String())
		require.Equal(t, want, again)
	}
	for _, text := range []string{"", "MiB", "-1MiB", "1.5GiB", "32M", "32 parsecs", "9223372036854775808", "9007199254740992KiB"} {
		_, err := config.ParseBytes(text)
		require.EqualError(t, err, fmt.Sprintf("%q is not a size: write a whole number with kB, MB, GB, KiB, MiB or GiB, as in 32MiB", text))
	}
	require.Equal(t, "32MiB", config.Bytes(32<<20).String())
	require.Equal(t, "32MB", config.Bytes(32e6).String())
	require.Equal(t, "0B", config.Bytes(0).String())
}
