package secret_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/secret"
)

var (
	clinic = uuid.MustParse("01980000-0000-7000-8000-000000000001")
	other  = uuid.MustParse("01980000-0000-7000-8000-000000000002")
)

// canary is a secret that must be nowhere but in what Resolve returns.
const canary = "canary-5e1f0c"

// resolver resolves with a new keyset and the given environment.
func resolver(t *testing.T, environment map[string]string) *secret.Resolver {
	t.Helper()
	k, err := secret.NewKeyset()
	require.NoError(t, err)
	return secret.NewResolver(secret.Options{Keyset: k, LookupEnv: func(name string) (string, bool) {
		value, found := environment[name]
		return value, found
	}})
}

// write makes a file with the text.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestResolve(t *testing.T) {
	t.Parallel()
	r := resolver(t, map[string]string{"CLINIC": canary})
	for stored, want := range map[string]string{
		"":                                      "",
		"as given":                              "as given",
		" env:CLINIC":                           " env:CLINIC",
		"env:CLINIC":                            canary,
		"file:" + write(t, canary):              canary,
		"file:" + write(t, canary+"\n"):         canary,
		"file:" + write(t, canary+"\r\n"):       canary,
		"file:" + write(t, "\n"+canary+" \n\n"): "\n" + canary + " \n", // one line break is the editor's, all else the secret's
	} {
		got, err := r.Resolve(stored, clinic)
		require.NoError(t, err, stored)
		require.Equal(t, want, got.Reveal(), stored)
	}
}

func TestResolveSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	r := resolver(t, map[string]string{"EMPTY": "", "DATABASE_URL": canary, "PGPASSWORD": canary, "WALHOOK_SECRETS_KEYSET": canary})
	missing := filepath.Join(t.TempDir(), "none")
	for stored, wants := range map[string][]string{
		"env:NONE":                   {"env:NONE", "not set", "set it"},
		"env:EMPTY":                  {"env:EMPTY", "empty"},
		"env:" + canary:              {"no environment variable", "env:CLINIC_SECRET"},
		"env:":                       {"no environment variable"},
		"env:DATABASE_URL":           {"env:DATABASE_URL", "the relay itself"},
		"env:PGPASSWORD":             {"env:PGPASSWORD", "the relay itself"},
		"env:WALHOOK_SECRETS_KEYSET": {"the relay itself"},
		"file:" + canary:             {"no absolute path", "file:/run/secrets/clinic"},
		"file:" + missing:            {missing, "no such file", "make the file"},
		"file:" + t.TempDir():        {"not a regular file"},
		"file:" + write(t, "\n"):     {"empty"},
		"file:" + write(t, strings.Repeat(canary, 6000)): {"65536 bytes"},
		"enc:" + canary:     {"no ciphertext"},
		"enc:":              {"no ciphertext"},
		"enc:AAAAAAAAAAAAA": {"no ciphertext"},
		"enc:AQAAAAEAAAAA":  {"key 1,", "does not have"},
	} {
		got, err := r.Resolve(stored, clinic)
		require.Error(t, err, stored)
		require.Empty(t, got.Reveal())
		for _, want := range wants {
			require.ErrorContains(t, err, want, stored)
		}
		require.NotContains(t, err.Error(), canary)
	}
}

func TestFileThatMayNotBeRead(t *testing.T) {
	t.Parallel()
	if os.Getuid() == 0 {
		t.Skip("root reads everything")
	}
	path := write(t, canary)
	require.NoError(t, os.Chmod(path, 0))
	_, err := resolver(t, nil).Resolve("file:"+path, clinic)
	require.ErrorContains(t, err, "let the relay read it")
}

func TestCheckLooksAtTheForm(t *testing.T) {
	t.Parallel()
	r := resolver(t, nil)
	encrypted, err := r.Encrypt(canary, clinic)
	require.NoError(t, err)
	for _, good := range []string{"", "plain", "env:NOT_SET_HERE", "file:/not/there", encrypted} {
		require.NoError(t, secret.Check(good), good)
	}
	for _, bad := range []string{"env:", "env:a b", "env:PGPASSWORD", "file:", "file:relative", "file:/a\x00b", "enc:", "enc:xyz"} {
		require.Error(t, secret.Check(bad), bad)
	}
	require.False(t, secret.IsReference("plain"))
	for _, reference := range []string{"env:A", "file:/a", encrypted} {
		require.True(t, secret.IsReference(reference))
	}
}

func TestEncrypt(t *testing.T) {
	t.Parallel()
	r := resolver(t, nil)
	stored, err := r.Encrypt(canary, clinic)
	require.NoError(t, err)
	require.Regexp(t, `^enc:[A-Za-z0-9+/]+=*$`, stored)
	require.NotContains(t, stored, canary)
	again, err := r.Encrypt(canary, clinic)
	require.NoError(t, err)
	require.NotEqual(t, stored, again, "with a nonce of its own")
	got, err := r.Resolve(stored, clinic)
	require.NoError(t, err)
	require.Equal(t, canary, got.Reveal())
}

// A ciphertext belongs to its row: whoever may write the table cannot have another subscription's secret used.
func TestEncryptedForOneSubscription(t *testing.T) {
	t.Parallel()
	r := resolver(t, nil)
	stored, err := r.Encrypt(canary, clinic)
	require.NoError(t, err)
	_, err = r.Resolve(stored, other)
	require.ErrorContains(t, err, "another subscription than "+other.String())
	require.NotContains(t, err.Error(), canary)

	flipped := []byte(stored)
	flipped[len(flipped)-6] ^= 1
	_, err = r.Resolve(string(flipped), clinic)
	require.Error(t, err)
}

func TestEncryptKeepsToTheColumn(t *testing.T) {
	t.Parallel()
	r := resolver(t, nil)
	stored, err := r.Encrypt(strings.Repeat("x", 1500), clinic)
	require.NoError(t, err)
	require.LessOrEqual(t, len(stored), secret.MaxStored)
	_, err = r.Encrypt(strings.Repeat("x", 1501), clinic)
	require.ErrorContains(t, err, "1501 bytes")
}

func TestNoKeyset(t *testing.T) {
	t.Parallel()
	r := secret.NewResolver(secret.Options{})
	require.False(t, r.Encrypts())
	_, err := r.Encrypt(canary, clinic)
	require.ErrorContains(t, err, "secrets.keyset_file")
	stored, err := resolver(t, nil).Encrypt(canary, clinic)
	require.NoError(t, err)
	_, err = r.Resolve(stored, clinic)
	require.ErrorContains(t, err, "secrets.keyset_file")
}

func FuzzResolve(f *testing.F) {
	k, err := secret.NewKeyset()
	require.NoError(f, err)
	r := secret.NewResolver(secret.Options{Keyset: k, LookupEnv: func(string) (string, bool) { return "", false }})
	encrypted, err := r.Encrypt(canary, clinic)
	require.NoError(f, err)
	for _, seed := range []string{"", "plain", "env:NAME", "env:\x00", "file:relative", "file:", "enc:", "enc:AQAAAAEAAAAA", encrypted, encrypted[:20], encrypted + "A"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, stored string) {
		if strings.HasPrefix(stored, "file:/") {
			return // not the machine's files
		}
		got, err := r.Resolve(stored, clinic)
		switch {
		case err != nil && got != "":
			t.Fatal("a secret beside an error")
		case err == nil && !secret.IsReference(stored) && got.Reveal() != stored:
			t.Fatal("a plain secret is not as it was given")
		case err == nil && secret.Check(stored) != nil:
			t.Fatal("resolved although Check refuses it")
		case err == nil && secret.IsEncrypted(stored) && got.Reveal() != canary:
			t.Fatal("a forged ciphertext was decrypted")
		}
	})
}
