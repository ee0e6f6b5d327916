package secret

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/google/uuid"
	"github.com/tink-crypto/tink-go/v2/keyset"

	"github.com/walhook/walhook/relay/delivery"
)

var errNoKeyset = errors.New("no keyset is configured: give the path of one as secrets.keyset_file, or itself as WALHOOK_SECRETS_KEYSET; " +
	"walhook secrets generate-keyset makes one")

// keyring holds the keyset that is valid now.
type keyring struct {
	file string // where current may be read again; empty: nowhere

	mu      sync.Mutex
	current *Keyset
}

// isFile reports whether path leads to the keyset's file, by whatever name.
func (r *keyring) isFile(path string) bool {
	if r.file == "" {
		return false
	}
	own, err := os.Stat(r.file)
	other, otherErr := os.Stat(path)
	return filepath.Clean(path) == filepath.Clean(r.file) || err == nil && otherErr == nil && os.SameFile(own, other)
}

func (r *keyring) get() *Keyset {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.current
}

// decrypt reads the keyset's file again when it meets an unknown key.
func (r *keyring) decrypt(stored string, subscription uuid.UUID) (delivery.Secret, error) {
	id, err := keyID(stored)
	if err != nil {
		return "", err
	}
	k, err := r.having(id)
	if err != nil {
		return "", err
	}
	ciphertext, err := decode(stored)
	if err != nil {
		return "", err
	}
	plain, err := k.aead.Decrypt(ciphertext, subscription[:])
	if err != nil {
		return "", fmt.Errorf("secret enc:… cannot be decrypted with key %d: it was altered, or encrypted for another subscription than %s: "+
			"set it anew with walhook subscriptions rotate-secret", id, subscription)
	}
	return delivery.Secret(plain), nil
}

// having returns a keyset with that key.
func (r *keyring) having(id uint32) (*Keyset, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.current == nil {
		return nil, fmt.Errorf("secret enc:… is encrypted and %w", errNoKeyset)
	}
	if r.current.has(id) {
		return r.current, nil
	}
	if r.file != "" {
		fresh, err := ReadKeyset(r.file)
		if err != nil {
			return nil, fmt.Errorf("secret enc:… was encrypted with key %d, which is new: %w", id, err)
		}
		r.current = fresh
	}
	if !r.current.has(id) {
		return nil, fmt.Errorf("secret enc:… was encrypted with key %d, which the keyset does not have: bring the key back, "+
			"or set the secret anew with walhook subscriptions rotate-secret", id)
	}
	return r.current, nil
}

func (k *Keyset) has(id uint32) bool {
	for i := range k.handle.Len() {
		if entry, err := k.handle.Entry(i); err == nil && entry.KeyID() == id && entry.KeyStatus() == keyset.Enabled {
			return true
		}
	}
	return false
}
