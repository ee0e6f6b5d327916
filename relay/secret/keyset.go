package secret

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	tinkpb "github.com/tink-crypto/tink-go/v2/proto/tink_go_proto"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// Keyset is a set of keys, of which the primary one encrypts and all decrypt: a tink keyset
// (https://developers.google.com/tink/design/keysets) of AES256-GCM keys. It prints as nothing.
type Keyset struct {
	handle *keyset.Handle
	aead   tink.AEAD
}

// NewKeyset makes a keyset of one random key.
func NewKeyset() (*Keyset, error) {
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, fmt.Errorf("make a keyset: %w", err)
	}
	return newKeyset(handle)
}

func newKeyset(handle *keyset.Handle) (*Keyset, error) {
	primitive, err := aead.New(handle)
	if err != nil {
		return nil, fmt.Errorf("use the keyset: %w", err)
	}
	return &Keyset{handle: handle, aead: primitive}, nil
}

// ParseKeyset reads a keyset from tink's JSON form, in which the keys stand in clear. The error says nothing
// about what the text is, because the text is secret.
func ParseKeyset(text []byte) (k *Keyset, err error) {
	wrong := errors.New("no keyset: it must be JSON as walhook secrets generate-keyset prints it, with AEAD keys in clear and one of them primary")
	handle, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(text)))
	if err != nil {
		return nil, wrong
	}
	if !prefixed(handle) {
		return nil, wrong
	}
	if k, err = newKeyset(handle); err != nil {
		return nil, wrong
	}
	return k, nil
}

// prefixed reports whether all ciphertexts begin with the id of their key, which tells what is encrypted with it
// (https://developers.google.com/tink/wire-format).
func prefixed(handle *keyset.Handle) bool {
	for _, key := range handle.KeysetInfo().GetKeyInfo() {
		if key.GetOutputPrefixType() != tinkpb.OutputPrefixType_TINK {
			return false
		}
	}
	return true
}

// ReadKeyset reads a keyset from a file, which other users must not be able to read.
func ReadKeyset(path string) (*Keyset, error) {
	text, err := readSmall(path)
	if err != nil {
		return nil, fmt.Errorf("keyset file %s: %w", path, err)
	}
	if err := checkMode(path); err != nil {
		return nil, err
	}
	k, err := ParseKeyset(text)
	if err != nil {
		return nil, fmt.Errorf("keyset file %s: %w", path, err)
	}
	return k, nil
}

// checkMode lets the file's group read it, as containers have it, and nobody else.
func checkMode(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("keyset file %s: %w", path, err)
	}
	if mode := info.Mode().Perm(); runtime.GOOS != "windows" && mode&0o027 != 0 {
		return fmt.Errorf("keyset file %s has mode %04o, with which others may read or change it: run chmod 600 %s", path, mode, path)
	}
	return nil
}

// Primary is the id of the key that encrypts.
func (k *Keyset) Primary() uint32 {
	entry, err := k.handle.Primary()
	if err != nil {
		return 0 // there is one: aead.New has required it
	}
	return entry.KeyID()
}

// Len is the number of keys.
func (k *Keyset) Len() int { return k.handle.Len() }

// Rotated returns the keyset with a new primary key. The other keys go on decrypting.
func (k *Keyset) Rotated() (*Keyset, error) {
	manager := keyset.NewManagerFromHandle(k.handle)
	id, err := manager.Add(aead.AES256GCMKeyTemplate())
	if err == nil {
		err = manager.SetPrimary(id)
	}
	if err != nil {
		return nil, fmt.Errorf("add a key: %w", err)
	}
	handle, err := manager.Handle()
	if err != nil {
		return nil, fmt.Errorf("add a key: %w", err)
	}
	return newKeyset(handle)
}

// Reveal returns the keyset in tink's JSON form, keys in clear, on several lines.
func (k *Keyset) Reveal() ([]byte, error) {
	var plain, indented bytes.Buffer
	if err := insecurecleartextkeyset.Write(k.handle, keyset.NewJSONWriter(&plain)); err != nil {
		return nil, fmt.Errorf("write the keyset: %w", err)
	}
	if err := json.Indent(&indented, bytes.TrimSpace(plain.Bytes()), "", "  "); err != nil {
		return nil, errors.New("write the keyset: it is no JSON")
	}
	return append(indented.Bytes(), '\n'), nil
}

// Format hides the keyset from every verb of fmt.
func (k *Keyset) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[redacted]") }

// MarshalText hides the keyset from encoders.
func (k *Keyset) MarshalText() ([]byte, error) { return []byte("[redacted]"), nil }

// Create writes the keyset to a file that must not be there yet: to overwrite one would lose its secrets.
// Only the file's owner may read it.
func (k *Keyset) Create(path string) error {
	text, err := k.Reveal()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("keyset file %s is there already: rotate it with walhook secrets rotate-keyset, or give another path", path)
	}
	if err != nil {
		return fmt.Errorf("make keyset file: %w", err)
	}
	return fill(f, text)
}

// Replace puts the keyset in the place of a file that is there, at once and durably, with its mode. The file is
// never half written, because what is encrypted with a lost key is lost.
func (k *Keyset) Replace(path string) error {
	text, err := k.Reveal()
	if err != nil {
		return err
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return fmt.Errorf("replace keyset file: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("replace keyset file: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".keyset-*") // mode 0600
	if err != nil {
		return fmt.Errorf("replace keyset file: %w", err)
	}
	defer func() { _ = os.Remove(f.Name()) }() // it is there only after an error
	if err := fill(f, text); err != nil {
		return err
	}
	if err := errors.Join(keepOwner(f.Name(), info), os.Chmod(f.Name(), info.Mode().Perm())); err != nil {
		return fmt.Errorf("replace keyset file: %w", err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("replace keyset file: %w", err)
	}
	return syncDirectory(filepath.Dir(path))
}

// fill writes, syncs and closes.
func fill(f *os.File, text []byte) error {
	_, err := f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write keyset file: %w", err)
	}
	return nil
}

// syncDirectory makes a rename durable. Windows cannot and need not.
func syncDirectory(path string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync keyset file: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync keyset file: %w", err)
	}
	return nil
}

// tinkPrefix begins a ciphertext of which the key's id follows (https://developers.google.com/tink/wire-format).
const tinkPrefix = 1

// keyID reads which key a stored secret was encrypted with.
func keyID(stored string) (uint32, error) {
	ciphertext, err := decode(stored)
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint32(ciphertext[1:]), nil
}

// decode returns the ciphertext of a stored secret, which has at least a prefix.
func decode(stored string) ([]byte, error) {
	ciphertext, err := base64.StdEncoding.DecodeString(stored[min(len(encPrefix), len(stored)):])
	if err != nil || len(ciphertext) < 5 || ciphertext[0] != tinkPrefix {
		return nil, errors.New("secret enc:… is no ciphertext of walhook's: set the secret anew with walhook subscriptions rotate-secret")
	}
	return ciphertext, nil
}
