package config_test

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/walhook/walhook/config"
)

var rewrite = flag.Bool("rewrite", false, "write the golden error texts instead of comparing them")

// secretKeys are those whose values are not printed as they are.
var secretKeys = []string{"database_url", "secrets.keyset", "delivery.proxy", "api.token"}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAnnotatedIsTheDefaults(t *testing.T) {
	got, err := config.Load("walhook.yaml", nil)
	require.NoError(t, err)
	require.Empty(t, cmp.Diff(config.Default(), got))

	text, err := os.ReadFile("walhook.yaml")
	require.NoError(t, err)
	require.Equal(t, string(text), config.Annotated)
	for _, k := range config.Keys() {
		last := k.Name[strings.LastIndexByte(k.Name, '.')+1:]
		if k.Default == "" {
			require.Regexp(t, `\n *# +`+last+": ", config.Annotated, k.Name)
			continue
		}
		require.Contains(t, config.Annotated, last+": "+k.Default+"\n", k.Name)
		if k.Type != "text" {
			require.Contains(t, config.Annotated, k.Limits+".\n", k.Name)
		}
	}
}

func TestGoodFiles(t *testing.T) {
	full := config.Default()
	full.DatabaseURL = "postgres://relay:s3cret@db.example:5432/clinic?sslmode=verify-full"
	full.Slot = "walhook_2"
	full.Listen = "0.0.0.0:80"
	full.PathPrefix = "/hooks/walhook-1"
	full.MetricsListen = "10.0.0.7:9464"
	full.API.Enabled = false
	full.API.Token = "s3cret-of-twenty-characters"
	full.LogLevel = "warn"
	full.LogFormat = "json"
	full.Record.Interval = 50 * time.Millisecond
	full.Memory.MaxUnrecorded = 100
	full.Memory.MaxUnrecordedBytes = 1 << 20
	full.Delivery.MaxSenders = 8
	full.Delivery.Origin = "relay.example.com"
	full.Replay.Rate = 20
	full.Delivery.SpillAfter = 90 * time.Second
	full.Delivery.GracePeriod = 0
	full.Delivery.AllowHTTP = true
	full.Delivery.AllowLoopback = "never"
	full.Delivery.AllowNetworks = config.List{"10.0.0.0/8", "fd00::/8", "::1"}
	full.Delivery.AllowPorts = config.List{"443", "8000-8999"}
	full.Delivery.NAT64Prefixes = config.List{"64:ff9b::/96"}
	full.Delivery.Proxy = "http://relay:s3cret@proxy:3128"
	full.Queue.LeaseMargin = time.Minute
	full.Queue.PollInterval = time.Second
	full.Retention.Events = 7 * 24 * time.Hour
	full.Retention.Attempts = 36 * time.Hour
	full.Retention.DeadLetters = 90 * 24 * time.Hour
	full.Retention.PartitionsAhead = 24 * time.Hour
	full.Secrets.KeysetFile = "/run/secrets/keyset.json"
	full.Replication.StatusInterval = 5 * time.Second
	full.Replication.Heartbeat = 0
	full.Replication.WALDiskSize = 100 << 30
	full.Replication.ConnectTimeout = 30 * time.Second
	full.OnLostSlot = "halt"
	full.Alerts.Interval = time.Minute
	full.Alerts.NoActivity = 7 * 24 * time.Hour
	full.Alerts.SuccessRate = 99
	full.Alerts.ConsecutiveFailures = 3
	full.Alerts.Timeouts = 0
	full.Alerts.Lag = 30 * time.Second
	full.Alerts.SlotLostWithin = 48 * time.Hour
	windows := config.Default()
	windows.Listen = ":9090"
	windows.LogLevel = "debug"

	for name, want := range map[string]config.Config{
		"full": full, "windows": windows, "empty": config.Default(), "comments": config.Default(),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := config.Load(filepath.Join("testdata", "good", name+".yaml"), nil)
			require.NoError(t, err)
			require.Empty(t, cmp.Diff(want, got))
			got.DatabaseURL = "postgres://db/clinic"
			require.NoError(t, got.Validate())
		})
	}
}

// TestBadFiles compares the errors of Load, or else of Validate, with what stands beside each file.
func TestBadFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			c, err := config.Load(path, nil)
			if err == nil {
				err = c.Validate()
			}
			require.Error(t, err)
			require.NotContains(t, err.Error(), "s3cret")
			golden(t, strings.TrimSuffix(path, ".yaml")+".error", err.Error()+"\n")
		})
	}
}

// golden compares a text with a file, or writes the file when the tests run with -rewrite.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *rewrite {
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}

func TestFileIsFound(t *testing.T) {
	t.Chdir(t.TempDir())
	c, err := config.Load("", nil)
	require.NoError(t, err)
	require.Equal(t, config.Default(), c)

	require.NoError(t, os.WriteFile(config.File, []byte("slot: from_directory\n"), 0o600))
	require.NoError(t, os.WriteFile("other.yaml", []byte("slot: from_variable\n"), 0o600))
	require.NoError(t, os.WriteFile("flag.yaml", []byte("slot: from_flag\n"), 0o600))
	for want, load := range map[string]struct{ path, variable string }{
		"from_directory": {},
		"from_variable":  {variable: "WALHOOK_CONFIG=other.yaml"},
		"from_flag":      {path: "flag.yaml", variable: "WALHOOK_CONFIG=other.yaml"},
	} {
		c, err := config.Load(load.path, []string{load.variable})
		require.NoError(t, err)
		require.Equal(t, want, c.Slot)
	}

	_, err = config.Load("missing.yaml", nil)
	require.EqualError(t, err, "read configuration: stat missing.yaml: no such file or directory")
	_, err = config.Load("", []string{"WALHOOK_CONFIG=missing.yaml"})
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoError(t, os.WriteFile("huge.yaml", make([]byte, 1<<20+1), 0o600))
	_, err = config.Load("huge.yaml", nil)
	require.EqualError(t, err, "read configuration: huge.yaml has 1048577 bytes, the most is 1048576: is it the right file?")
}

func TestEveryKeyHasItsVariable(t *testing.T) {
	values := map[string]string{"duration": "2h", "size": "3MiB", "number": "7", "bool": "true", "list": "a,b", "text": "text"}
	for _, k := range config.Keys() {
		require.Equal(t, "WALHOOK_"+strings.ToUpper(strings.ReplaceAll(k.Name, ".", "_")), k.Env)
		want := values[k.Type]
		if want == k.Default {
			want = "false" // what is not the default
		}
		c, err := config.Load("testdata/good/empty.yaml", []string{k.Env + "=" + want})
		require.NoError(t, err, k.Env)
		if slices.Contains(secretKeys, k.Name) {
			want = "[redacted]"
		}
		got, ok := c.Get(k.Name)
		require.True(t, ok, k.Name)
		require.Equal(t, want, got, k.Name)
		require.NotEqual(t, config.Default(), c, k.Name)
	}
}

func TestEnvironmentWinsOverFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "walhook.yaml")
	require.NoError(t, os.WriteFile(file, []byte("database_url: postgres://file\nslot: file\n"), 0o600))
	load := func(environ ...string) config.Config {
		c, err := config.Load(file, environ)
		require.NoError(t, err)
		return c
	}
	require.Equal(t, "postgres://file", load().DatabaseURL.Reveal())
	require.Equal(t, "postgres://a", load("DATABASE_URL=postgres://a").DatabaseURL.Reveal())
	require.Equal(t, "postgres://b", load("DATABASE_URL=postgres://a", "WALHOOK_DATABASE_URL=postgres://b").DatabaseURL.Reveal())
	require.Equal(t, "postgres://a", load("DATABASE_URL=postgres://a", "WALHOOK_DATABASE_URL=").DatabaseURL.Reveal())
	require.Equal(t, "postgres://file", load("DATABASE_URL=").DatabaseURL.Reveal())
	require.Equal(t, "env", load("WALHOOK_SLOT=env").Slot)
	require.Equal(t, "file", load("WALHOOK_SLOT=").Slot)
	require.Equal(t, "a=b", load("WALHOOK_SLOT=a=b").Slot)
}

func TestUnknownVariables(t *testing.T) {
	_, err := config.Load("testdata/good/empty.yaml", []string{
		"WALHOOK_LISTN=x", "WALHOOK_RETENTION_EVENT=7d", "WALHOOK_=", "WALHOOK_COLOUR=blue", "WALHOOK_TEST_DATABASE_URL=x",
		"WALHOOK_JSON=true", "PATH=/bin", "WALHOOKS=1", "WALHOOK_DELIVERY_MAX_SENDERS=lots",
	}, "WALHOOK_JSON")
	require.EqualError(t, err, `environment variable WALHOOK_DELIVERY_MAX_SENDERS: delivery.max_senders: "lots" is not a whole number up to 2147483647: write digits only, as in 256
environment variable WALHOOK_ is no setting: unset it
environment variable WALHOOK_COLOUR is no setting: unset it
environment variable WALHOOK_LISTN is no setting: did you mean WALHOOK_LISTEN?
environment variable WALHOOK_RETENTION_EVENT is no setting: did you mean WALHOOK_RETENTION_EVENTS?`)
}

func TestValidateWantsADatabase(t *testing.T) {
	c := config.Default()
	require.EqualError(t, c.Validate(), "database_url: not set: give it as DATABASE_URL, WALHOOK_DATABASE_URL, --database-url "+
		"or in walhook.yaml, as in postgres://user:password@host:5432/database")
	for _, url := range []string{"postgres://db", "postgresql:///clinic?host=/run/postgresql", "host=db user=relay"} {
		c.DatabaseURL = config.Secret(url)
		require.NoError(t, c.Validate(), url)
	}
}

func TestValidateListen(t *testing.T) {
	c := config.Default()
	c.DatabaseURL = "postgres://db"
	for _, good := range []string{":0", ":8080", "[::1]:8080", "localhost:65535"} {
		c.Listen = good
		require.NoError(t, c.Validate(), good)
	}
	for _, bad := range []string{"", "8080", "localhost:", "localhost:http", "localhost:65536", "::1:8080"} {
		c.Listen = bad
		require.ErrorContains(t, c.Validate(), "listen: ", bad)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(config.Annotated))
	for _, pattern := range []string{"testdata/good/*.yaml", "testdata/bad/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, path := range files {
			text, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(text)
		}
	}
	path := filepath.Join(f.TempDir(), "walhook.yaml")
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := config.Load(path, nil)
		if err != nil && err.Error() == "" {
			t.Fatal("an error without a text")
		}
		if err != nil {
			return
		}
		if err := c.Validate(); err != nil && strings.Contains(err.Error(), "limit:") {
			t.Fatal(err)
		}
		for _, k := range config.Keys() { // what is printed is read again
			value, _ := c.Get(k.Name)
			again := config.Default()
			if slices.Contains(secretKeys, k.Name) || value == "" {
				continue
			}
			if err := again.Set(k.Name, value); err != nil {
				t.Fatal(err)
			}
			if printed, _ := again.Get(k.Name); printed != value {
				t.Fatalf("%s is printed as %q and then as %q", k.Name, value, printed)
			}
		}
	})
}
