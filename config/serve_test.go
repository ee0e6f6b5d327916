package config_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/config"
)

// valid is a configuration with a database.
func valid() config.Config {
	c := config.Default()
	c.DatabaseURL = "postgres://db"
	return c
}

func TestValidatePathPrefix(t *testing.T) {
	t.Parallel()
	c := valid()
	for _, good := range []string{"", "/walhook", "/a/b.c/~d_e-1", "/metrics/x", "/api"} {
		c.PathPrefix = good
		require.NoError(t, c.Validate(), good)
	}
	for _, bad := range []string{"/", "walhook", "/walhook/", "//walhook", "/a//b", "/a/../b", "/.", "/a b", "/a%2Fb", "/ä", "/a?b", "/a#b", "/{a}", "/metrics",
		"/healthz", "https://host/a", "/" + strings.Repeat("a", 255)} {
		c.PathPrefix = bad
		require.ErrorContains(t, c.Validate(), fmt.Sprintf("path_prefix: %q ", bad))
		require.ErrorContains(t, c.Validate(), "/walhook", "the remedy")
	}
}

func TestValidateMetricsListen(t *testing.T) {
	t.Parallel()
	c := valid()
	for _, good := range []string{"", "127.0.0.1:9464", ":0"} {
		c.MetricsListen = good
		require.NoError(t, c.Validate(), good)
	}
	c.MetricsListen = "9464"
	require.ErrorContains(t, c.Validate(), `metrics_listen: "9464" is no address`)
	c.MetricsListen = c.Listen
	require.EqualError(t, c.Validate(), `metrics_listen: "127.0.0.1:8080" is listen as well: give another address, or leave metrics_listen out for both on one`)
	c.Listen, c.MetricsListen = "127.0.0.1:0", "127.0.0.1:0"
	require.NoError(t, c.Validate(), "two ports of the system's choice")
}

func TestValidateAPIToken(t *testing.T) {
	t.Parallel()
	c := valid()
	for _, good := range []string{"", "12345678901234567890", "//0123456789+abcdef==:{}", strings.Repeat("x", 255)} {
		c.API.Token = config.Secret(good)
		require.NoError(t, c.Validate(), good)
	}
	for _, bad := range []string{"s3cret", "s3cret-with-a space-in-it", "s3cret-with-a-täst-in-it", "s3cret-with-a-\x00-in-it", "http://s3cret.of.mine/too", strings.Repeat("s3cret", 50)} {
		c.API.Token = config.Secret(bad)
		err := c.Validate()
		require.ErrorContains(t, err, "api.token: the value ", bad)
		require.ErrorContains(t, err, "openssl rand -hex 32")
		require.NotContains(t, err.Error(), "s3cret")
	}
}

func TestAPITokenIsNeverPrinted(t *testing.T) {
	t.Parallel()
	for _, token := range []string{"s3cret-of-twenty-characters", "//s3cret/of/twenty/characters"} {
		c := valid()
		require.NoError(t, c.Set("api.token", token))
		require.Equal(t, token, c.API.Token.Reveal())
		encoded, err := json.Marshal(c)
		require.NoError(t, err)
		require.NotContains(t, string(encoded)+fmt.Sprintf("%v %+v %#v", c, c, c)+c.Redacted().API.Token.Reveal(), "s3cret")
		printed, _ := c.Get("api.token")
		require.Equal(t, "[redacted]", printed)

		fs := pflag.NewFlagSet("walhook", pflag.ContinueOnError)
		config.Flags(fs)
		require.NoError(t, fs.Parse([]string{"--api-token", token}))
		require.NotContains(t, fs.Lookup("api-token").Value.String(), "s3cret")
	}
}
