package secret_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/secret"
)

// keysetFile makes a keyset in a file.
func keysetFile(t *testing.T) (*secret.Keyset, string) {
	t.Helper()
	k, err := secret.NewKeyset()
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "keyset.json")
	require.NoError(t, k.Create(path))
	return k, path
}

func TestKeysetFile(t *testing.T) {
	t.Parallel()
	k, path := keysetFile(t)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	require.ErrorContains(t, k.Create(path), "there already", "overwriting a keyset would lose all that is encrypted with it")

	read, err := secret.ReadKeyset(path)
	require.NoError(t, err)
	require.Equal(t, k.Primary(), read.Primary())
	stored, err := secret.NewResolver(secret.Options{Keyset: k}).Encrypt(canary, clinic)
	require.NoError(t, err)
	got, err := secret.NewResolver(secret.Options{Keyset: read}).Resolve(stored, clinic)
	require.NoError(t, err)
	require.Equal(t, canary, got.Reveal())
}

func TestKeysetFileIsForItsOwner(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("no such modes")
	}
	_, path := keysetFile(t)
	for mode, good := range map[os.FileMode]bool{0o600: true, 0o400: true, 0o440: true, 0o640: true, 0o644: false, 0o604: false, 0o660: false, 0o602: false} {
		require.NoError(t, os.Chmod(path, mode))
		_, err := secret.ReadKeyset(path)
		if good {
			require.NoError(t, err, mode)
			continue
		}
		require.ErrorContains(t, err, "chmod 600 "+path, mode)
		require.ErrorContains(t, err, fmt.Sprintf("%04o", mode))
	}
}

func TestKeysetThatIsNone(t *testing.T) {
	t.Parallel()
	k, _ := keysetFile(t)
	text, err := k.Reveal()
	require.NoError(t, err)
	for _, wrong := range []string{
		"", "{}", canary, `{"key": "` + canary + `"}`, `{"primaryKeyId": 1, "key": []}`, string(text[:len(text)/2]),
		strings.Replace(string(text), `"TINK"`, `"RAW"`, 1), strings.Replace(string(text), "AesGcmKey", "HmacKey", 1),
		strings.Replace(string(text), `"ENABLED"`, `"DISABLED"`, 1),
	} {
		_, err := secret.ParseKeyset([]byte(wrong))
		require.ErrorContains(t, err, "walhook secrets generate-keyset")
		require.NotContains(t, err.Error(), canary)
	}
	_, err = secret.ReadKeyset(write(t, canary))
	require.ErrorContains(t, err, "no keyset")
	require.NotContains(t, err.Error(), canary)
	_, err = secret.ReadKeyset("/no/such/keyset.json")
	require.ErrorContains(t, err, "/no/such/keyset.json")
}

func TestKeysetPrintsAsNothing(t *testing.T) {
	t.Parallel()
	k, _ := keysetFile(t)
	encoded, err := json.Marshal(k)
	require.NoError(t, err)
	require.Equal(t, `"[redacted]" [redacted] [redacted] [redacted]`, string(encoded)+fmt.Sprintf(" %v %+v %#v", k, k, k))
}

func TestRotation(t *testing.T) {
	t.Parallel()
	k, path := keysetFile(t)
	relay := secret.NewResolver(secret.Options{Keyset: k, KeysetFile: path}) // runs all the while
	old, err := relay.Encrypt(canary, clinic)
	require.NoError(t, err)
	require.True(t, relay.Current(old))

	rotated, err := k.Rotated()
	require.NoError(t, err)
	require.Equal(t, 2, rotated.Len())
	require.NotEqual(t, k.Primary(), rotated.Primary())
	require.NoError(t, os.Chmod(path, 0o440))
	require.NoError(t, rotated.Replace(path))
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o440), info.Mode().Perm(), "who could read it still can")
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, entries, 1, "nothing is left behind")

	command := secret.NewResolver(secret.Options{Keyset: rotated})
	require.False(t, command.Current(old), "to be encrypted again")
	fresh, err := command.Encrypt(canary, clinic)
	require.NoError(t, err)
	for _, stored := range []string{old, fresh} {
		for _, r := range []*secret.Resolver{command, relay} {
			got, err := r.Resolve(stored, clinic)
			require.NoError(t, err, "a running relay reads the file again")
			require.Equal(t, canary, got.Reveal())
		}
	}
	_, err = secret.NewResolver(secret.Options{Keyset: k}).Resolve(fresh, clinic)
	require.ErrorContains(t, err, "which the keyset does not have")
}

func TestRotationWithAFileThatCannotBeRead(t *testing.T) {
	t.Parallel()
	k, path := keysetFile(t)
	rotated, err := k.Rotated()
	require.NoError(t, err)
	fresh, err := secret.NewResolver(secret.Options{Keyset: rotated}).Encrypt(canary, clinic)
	require.NoError(t, err)
	require.NoError(t, os.Remove(path))
	r := secret.NewResolver(secret.Options{Keyset: k, KeysetFile: path})
	_, err = r.Resolve(fresh, clinic)
	require.ErrorContains(t, err, path)
	require.NoError(t, rotated.Create(path))
	got, err := r.Resolve(fresh, clinic)
	require.NoError(t, err)
	require.Equal(t, canary, got.Reveal())
}

// A keyset's file is no subscription's secret.
func TestKeysetFileIsNoSecret(t *testing.T) {
	t.Parallel()
	k, path := keysetFile(t)
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(path, link))
	for _, name := range []string{path, filepath.Dir(path) + "/./keyset.json", link} {
		_, err := secret.NewResolver(secret.Options{Keyset: k, KeysetFile: path}).Resolve("file:"+name, clinic)
		require.ErrorContains(t, err, "the keyset itself", name)
	}
}

func FuzzParseKeyset(f *testing.F) {
	k, err := secret.NewKeyset()
	require.NoError(f, err)
	text, err := k.Reveal()
	require.NoError(f, err)
	f.Add(text)
	f.Add([]byte(`{"primaryKeyId": 1}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		k, err := secret.ParseKeyset(text)
		if err != nil {
			return
		}
		r := secret.NewResolver(secret.Options{Keyset: k})
		stored, err := r.Encrypt(canary, clinic)
		if err != nil {
			t.Fatal("a keyset that does not encrypt")
		}
		if got, err := r.Resolve(stored, clinic); err != nil || got.Reveal() != canary {
			t.Fatal("a keyset that does not decrypt what it has encrypted")
		}
	})
}
