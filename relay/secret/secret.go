// Package secret turns what stands in the secret columns of outbox.subscriptions into the secret to sign with.
// What is stored is one of
//
//	env:NAME          the environment variable of that name, of the relay's process
//	file:/path        what is in the file, without its last line break
//	enc:<base64>      encrypted with a keyset: AES256-GCM, the subscription's id as associated data
//	anything else     the secret itself
//
// so that the table, its WAL and its backups need not hold a secret that can be read.
package secret

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/google/uuid"

	"github.com/walhook/walhook/relay/delivery"
)

// What a stored secret begins with.
const (
	envPrefix  = "env:"
	filePrefix = "file:"
	encPrefix  = "enc:"
)

const (
	// MaxStored is the most that the secret column takes of what is encrypted, in bytes.
	MaxStored = 2048
	// maxFile bounds a secret in a file, in bytes.
	maxFile = 64 << 10
)

// variableName is what POSIX allows for the name of an environment variable (IEEE Std 1003.1, section 8.1).
var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// Options of a Resolver.
type Options struct {
	// Keyset decrypts and encrypts; nil when none is configured.
	Keyset *Keyset
	// KeysetFile is where Keyset was read from, if from a file. It is read again when a secret was encrypted
	// with a key that Keyset does not have, so that a rotation needs no restart.
	KeysetFile string
	// LookupEnv finds environment variables; nil means os.LookupEnv.
	LookupEnv func(string) (string, bool)
}

// Resolver resolves stored secrets. It may be used by several goroutines.
type Resolver struct {
	keys      keyring
	lookupEnv func(string) (string, bool)
}

// NewResolver returns a Resolver. It reads nothing.
func NewResolver(o Options) *Resolver {
	if o.LookupEnv == nil {
		o.LookupEnv = os.LookupEnv
	}
	return &Resolver{keys: keyring{current: o.Keyset, file: o.KeysetFile}, lookupEnv: o.LookupEnv}
}

// Resolve returns the secret that stored stands for in the row of that subscription; nothing stored is no
// secret. Errors name the variable, file or key that is missing and the remedy, never the secret.
func (r *Resolver) Resolve(stored string, subscription uuid.UUID) (delivery.Secret, error) {
	switch {
	case strings.HasPrefix(stored, envPrefix):
		return r.variable(stored[len(envPrefix):])
	case strings.HasPrefix(stored, filePrefix):
		return r.file(stored[len(filePrefix):])
	case strings.HasPrefix(stored, encPrefix):
		return r.keys.decrypt(stored, subscription)
	}
	return delivery.Secret(stored), nil
}

// Encrypt returns what to store for a secret of that subscription: "enc:" and the ciphertext under the
// keyset's primary key. Without a keyset, and when the result is longer than MaxStored, it is an error.
func (r *Resolver) Encrypt(plain string, subscription uuid.UUID) (stored string, err error) {
	k := r.keys.get()
	if k == nil {
		return "", errNoKeyset
	}
	ciphertext, err := k.aead.Encrypt([]byte(plain), subscription[:])
	if err != nil {
		return "", errors.New("encrypt the secret: the keyset does not encrypt: make one with walhook secrets generate-keyset")
	}
	stored = encPrefix + base64.StdEncoding.EncodeToString(ciphertext)
	if len(stored) > MaxStored {
		return "", fmt.Errorf("the secret has %d bytes, encrypted %d, and %d can be stored: use a shorter one, or store file:/path", len(plain), len(stored), MaxStored)
	}
	return stored, nil
}

// Encrypts reports whether there is a keyset to encrypt with.
func (r *Resolver) Encrypts() bool { return r.keys.get() != nil }

// Current reports whether stored is encrypted under the keyset's primary key, so that it need not be
// encrypted again.
func (r *Resolver) Current(stored string) bool {
	id, err := keyID(stored)
	k := r.keys.get()
	return err == nil && k != nil && id == k.Primary()
}

// IsReference reports whether stored says where the secret is, rather than being the secret: env:NAME,
// file:/path or enc:….
func IsReference(stored string) bool {
	return strings.HasPrefix(stored, envPrefix) || strings.HasPrefix(stored, filePrefix) || IsEncrypted(stored)
}

// IsEncrypted reports whether stored was made by Encrypt.
func IsEncrypted(stored string) bool { return strings.HasPrefix(stored, encPrefix) }

// Check looks at the form of a reference, without following it: who writes a subscription does not have the
// relay's environment and files. Everything that is no reference is fine.
func Check(stored string) error {
	switch {
	case strings.HasPrefix(stored, envPrefix):
		return checkVariable(stored[len(envPrefix):])
	case strings.HasPrefix(stored, filePrefix):
		return checkPath(stored[len(filePrefix):])
	case IsEncrypted(stored):
		_, err := keyID(stored)
		return err
	}
	return nil
}

// checkVariable refuses the relay's own settings: who may write a subscription could otherwise have the
// password of the database used as a key and guess at it. What is no name may be a secret and is not shown.
func checkVariable(name string) error {
	if !variableName.MatchString(name) {
		return errors.New("secret env:… names no environment variable: write env: and a name of A-Z, a-z, 0-9 and _, as in env:CLINIC_SECRET")
	}
	if strings.HasPrefix(name, "WALHOOK_") || strings.HasPrefix(name, "PG") || name == "DATABASE_URL" {
		return fmt.Errorf("secret env:%s is a setting of the relay itself: put the subscription's secret into a variable of its own", name)
	}
	return nil
}

func checkPath(path string) error {
	if !filepath.IsAbs(path) || strings.ContainsRune(path, 0) {
		return errors.New("secret file:… names no absolute path: write it from the root, as in file:/run/secrets/clinic")
	}
	return nil
}

func (r *Resolver) variable(name string) (delivery.Secret, error) {
	if err := checkVariable(name); err != nil {
		return "", err
	}
	if value, _ := r.lookupEnv(name); value != "" {
		return delivery.Secret(value), nil
	}
	return "", fmt.Errorf("secret env:%s: the environment variable %s is not set or empty: set it for walhook run and restart it", name, name)
}

func (r *Resolver) file(path string) (delivery.Secret, error) {
	if err := checkPath(path); err != nil {
		return "", err
	}
	if r.keys.isFile(path) {
		return "", fmt.Errorf("secret file:%s is the keyset itself: put the subscription's secret into a file of its own", path)
	}
	text, err := readSmall(path)
	if err != nil {
		return "", fmt.Errorf("secret file:%s: %w", path, err)
	}
	trimmed := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	if trimmed == "" {
		return "", fmt.Errorf("secret file:%s: the file is empty: write the secret into it", path)
	}
	return delivery.Secret(trimmed), nil
}

// readSmall reads a regular file of at most maxFile bytes. It looks before it opens, because to open a named
// pipe is to wait, and takes nothing from files that have no size and a content all the same: /proc/self/environ holds
// the settings that checkVariable refuses.
func readSmall(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("%w: make the file, readable for the relay", err)
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file: give the path of one")
	}
	if info.Size() == 0 {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w: let the relay read it", err)
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("more than %d bytes: is it the right file?", maxFile)
	}
	return text, err
}
