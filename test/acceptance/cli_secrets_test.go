package acceptance_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

// plainSecret is one that must never be printed, logged or, with a keyset, stored.
const plainSecret = "canary-7d5a0c9e41b2f3"

// keyset makes a keyset's file by the command.
func (db *database) keyset() string {
	db.t.Helper()
	path := filepath.Join(db.t.TempDir(), "keyset.json")
	r := db.cliRun("secrets", "generate-keyset", "--out", path)
	require.Zero(db.t, r.code, r.stderr)
	require.NotContains(db.t, r.stdout, "value")
	return path
}

func (db *database) secret(name string) string {
	db.t.Helper()
	return ask[string](db, "SELECT coalesce(secret, '-') FROM outbox.subscriptions WHERE name = $1", name)
}

func TestSecretsKeysetOnStandardOutput(t *testing.T) {
	db := newDatabase(t)
	r := db.cliRun("secrets", "generate-keyset")
	require.Zero(t, r.code, r.stderr)
	require.True(t, json.Valid([]byte(r.stdout)))
	with := append(db.env(), "WALHOOK_SECRETS_KEYSET="+r.stdout)
	require.Zero(t, run(t, with, "subscriptions", "add", "--name", "n", "--url", "http://localhost/", "--secret", plainSecret).code)
	require.Regexp(t, "^enc:", db.secret("n"))

	both := run(t, append(with, "WALHOOK_SECRETS_KEYSET_FILE="+db.keyset()), "subscriptions", "update", "n", "--secret", plainSecret)
	require.Equal(t, 2, both.code)
	require.Contains(t, both.stderr, "secrets.keyset_file is set as well")
	bad := run(t, append(db.env(), "WALHOOK_SECRETS_KEYSET="+plainSecret), "subscriptions", "update", "n", "--secret", "x")
	require.Equal(t, 2, bad.code)
	require.Contains(t, bad.stderr, "secrets.keyset: no keyset")
	require.NotContains(t, bad.stderr, plainSecret)
}

// With a keyset no command stores what it was given; references stay as they are.
func TestSecretsAreStoredEncrypted(t *testing.T) {
	db := newDatabase(t)
	keys := []string{"--secrets-keyset-file", db.keyset()}
	db.added(append(keys, "--name", "n", "--url", "http://localhost/", "--secret", plainSecret)...)
	db.added(append(keys, "--name", "e", "--url", "http://localhost/", "--secret", "env:CLINIC")...)
	require.Regexp(t, "^enc:", db.secret("n"))
	require.Equal(t, "env:CLINIC", db.secret("e"))
	require.Equal(t, "encrypted", db.cliRun("subscriptions", "show", "n", "--json").object(t)["secret"])
	first := db.secret("n")
	r := db.cliRun(append(keys, "subscriptions", "update", "n", "--secret", plainSecret)...)
	require.Zero(t, r.code, r.stderr)
	require.NotEqual(t, first, db.secret("n"))
	r = db.cliRun(append(keys, "subscriptions", "rotate-secret", "n", "--json")...)
	require.Regexp(t, "^whsec_", r.object(t)["generated_secret"], "what receivers need, not what is stored")
	require.Regexp(t, "^enc:", db.secret("n"))
	require.Regexp(t, "^enc:", ask[string](db, "SELECT previous_secret FROM outbox.subscriptions WHERE name = 'n'"))

	r = db.cliRun(append(keys, "subscriptions", "update", "e", "--secret", db.secret("n"))...)
	require.Equal(t, 2, r.code)
	require.Contains(t, r.stderr, "encrypted for another subscription")

	require.NoError(t, os.Chmod(keys[1], 0o644))
	r = db.cliRun(append(keys, "subscriptions", "update", "n", "--secret", plainSecret)...)
	require.Equal(t, 2, r.code)
	require.Contains(t, r.stderr, "chmod 600 "+keys[1])
}

func TestSecretsReencrypt(t *testing.T) {
	db := newDatabase(t)
	path := db.keyset()
	env := append(db.env(), "WALHOOK_SECRETS_KEYSET_FILE="+path)
	reencrypt := func(args ...string) map[string]any {
		return run(t, env, append([]string{"secrets", "reencrypt", "--json"}, args...)...).object(t)
	}
	db.added("--name", "plain", "--url", "http://localhost/", "--secret", plainSecret)
	db.added("--name", "ref", "--url", "http://localhost/", "--secret", "file:/run/secret")
	db.added("--name", "none", "--url", "http://localhost/")
	require.Equal(t, map[string]any{"encrypted": 0.0, "unchanged": 2.0, "failed": 0.0}, reencrypt())
	require.Equal(t, plainSecret, db.secret("plain"))
	require.Equal(t, map[string]any{"encrypted": 1.0, "unchanged": 1.0, "failed": 0.0}, reencrypt("--plain"))
	old := db.secret("plain")
	require.Regexp(t, "^enc:", old)
	require.Equal(t, "file:/run/secret", db.secret("ref"))
	require.Equal(t, 0.0, reencrypt("--plain")["encrypted"], "what is under the primary key is not written again")

	r := db.cliRun("secrets", "rotate-keyset", path)
	require.Zero(t, r.code, r.stderr)
	require.Contains(t, r.stdout, "one of 2")
	require.Zero(t, run(t, env, "subscriptions", "rotate-secret", "plain").code)
	require.Equal(t, 1.0, reencrypt()["encrypted"], "the previous secret, too")
	require.Equal(t, 0.0, reencrypt()["encrypted"])
	require.NotEqual(t, old, ask[string](db, "SELECT previous_secret FROM outbox.subscriptions WHERE name = 'plain'"))

	// A row that fails stops nothing, and ends with 1.
	db.do("UPDATE outbox.subscriptions SET secret = 'enc:' || encode('\\x0100000001000000000000000000000000', 'base64') WHERE name = 'ref'")
	db.added("--name", "zz", "--url", "http://localhost/", "--secret", plainSecret)
	r = run(t, env, "secrets", "reencrypt", "--plain")
	require.Equal(t, 1, r.code)
	require.Equal(t, "encrypted 1, left 1 as they are, failed 1\n", r.stdout)
	require.Contains(t, r.stderr, "encrypted with key 1, which the keyset does not have")
	require.Regexp(t, "^enc:", db.secret("zz"))

	r = db.cliRun("secrets", "reencrypt")
	require.Equal(t, 2, r.code)
	require.Contains(t, r.stderr, "WALHOOK_SECRETS_KEYSET")
}

// No command prints a secret or a keyset, whatever it is given, in whatever form, and whether it succeeds.
func TestSecretsAreNeverPrinted(t *testing.T) {
	db, receiver := newDatabase(t), harness.NewCollector(t)
	path := db.keyset()
	keyset, err := os.ReadFile(path)
	require.NoError(t, err)
	var material struct {
		Key []struct {
			KeyData struct{ Value string } `json:"keyData"`
		} `json:"key"`
	}
	require.NoError(t, json.Unmarshal(keyset, &material))
	env := append(db.env(), "WALHOOK_SECRETS_KEYSET="+string(keyset))
	relay := harness.StartProcess(t, db.cli, env, "run", "--log-level", "trace")
	relay.WaitFor("walhook runs", soon)

	add := []string{"subscriptions", "add", "--url", receiver.URL(), "--secret", plainSecret, "--header", "Authorization: Bearer " + plainSecret}
	for _, args := range [][]string{
		append(add, "--name", "plain"),
		append(add, "--name", "encrypted", "--json", "--secrets-keyset", string(keyset)),
		append(add, "--name", "refused", "--max-retries", "99"),
		append(add, "--name", "refused", "--header", plainSecret),
		append(add, "--name", "refused", "--url", "https://u:"+plainSecret+"@h/"),
		append(add, "--name", "refused", "--signature", "standard"),
		{"subscriptions", "list"}, {"subscriptions", "list", "--json"},
		{"subscriptions", "show", "plain"}, {"subscriptions", "show", "plain", "--json"}, {"subscriptions", "show", "encrypted"},
		{"subscriptions", "update", "plain", "--secret", plainSecret + "2", "--json"},
		{"subscriptions", "update", "plain", "--secret", plainSecret, "--ordering", "x"},
		{"subscriptions", "rotate-secret", "plain", "--secret", plainSecret + "3"},
		{"subscriptions", "rotate-secret", "plain", "--secret", plainSecret + "3"},
		{"subscriptions", "deactivate", "plain"}, {"subscriptions", "activate", "plain", "--json"},
		{"subscriptions", "test", "plain"}, {"subscriptions", "test", "plain", "--json"},
		{"replay", "plain", "--since", "1h"}, {"replay", "plain", "--since", "1h", "--json"},
		{"redeliver", "--dead", "--subscription", "plain"},
		{"secrets", "reencrypt"}, {"secrets", "reencrypt", "--plain", "--json"}, {"secrets", "rotate-keyset", path},
		{"secrets", "rotate-keyset", path, "--json"}, {"secrets", "generate-keyset", "--out", path},
		{"status"}, {"status", "--json"}, {"run", "--help"}, {"subscriptions", "add", "--help"},
		{"subscriptions", "remove", "plain"},
		{"run", "--slot", "Wrong", "--secrets-keyset", string(keyset)},
	} {
		for _, more := range [][]string{nil, {"WALHOOK_SECRET=" + plainSecret}} {
			r := run(t, append(env, more...), args...)
			for _, hidden := range []string{plainSecret, material.Key[0].KeyData.Value} {
				require.NotContains(t, r.stdout+r.stderr, hidden, strings.Join(args, " "))
			}
		}
	}
	relay.Kill()
	require.NotContains(t, relay.Stdout()+relay.Stderr(), plainSecret)
	require.NotContains(t, relay.Stdout()+relay.Stderr(), material.Key[0].KeyData.Value)
}
