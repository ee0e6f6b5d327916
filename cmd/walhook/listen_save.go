package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// savedRequest is one request in a file of --save. The body is text where it is UTF-8, and base64 otherwise; what
// is signed are its bytes, which either gives back.
type savedRequest struct {
	At         time.Time   `json:"at"`
	Method     string      `json:"method"`
	Path       string      `json:"path"`
	Headers    http.Header `json:"headers"`
	Body       string      `json:"body,omitempty"`
	BodyBase64 []byte      `json:"body_base64,omitempty"`
}

func (s savedRequest) body() []byte {
	if len(s.BodyBase64) > 0 {
		return s.BodyBase64
	}
	return []byte(s.Body)
}

// saver writes requests into a directory, under names that sort in the order in which they came.
type saver struct {
	dir    string
	number atomic.Int64
}

// newSaver makes the directory. Requests may hold anything, so that others cannot read it.
func newSaver(dir string) (*saver, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("save requests: %w", err)
	}
	return &saver{dir: dir}, nil
}

// save never replaces a file.
func (s *saver) save(r *receivedRequest) error {
	saved := savedRequest{At: r.at, Method: r.request.Method, Path: r.request.URL.RequestURI(), Headers: r.request.Header}
	if utf8.Valid(r.body) {
		saved.Body = string(r.body)
	} else {
		saved.BodyBase64 = r.body
	}
	text, err := json.MarshalIndent(saved, "", "  ")
	if err != nil {
		return fmt.Errorf("save a request: %w", err)
	}
	name := fmt.Sprintf("%s-%06d.json", r.at.UTC().Format("20060102T150405.000000000"), s.number.Add(1))
	file, err := os.OpenFile(filepath.Join(s.dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("save a request: %w", err)
	}
	_, err = file.Write(append(text, '\n'))
	return errors.Join(err, file.Close())
}

// savedFiles lists what --replay names: files as they are given, and those of directories by name.
func savedFiles(paths []string) ([]string, error) {
	var files []string
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("%w: --replay: %w", errUsage, err)
		}
		if !info.IsDir() {
			files = append(files, path)
			continue
		}
		inside, err := fs.Glob(os.DirFS(path), "*.json")
		if err != nil {
			return nil, fmt.Errorf("--replay %s: %w", quote(path), err)
		}
		for _, name := range inside {
			files = append(files, filepath.Join(path, name))
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%w: --replay %s has no saved requests (*.json): make some with --save", errUsage, quote(paths[0]))
	}
	return files, nil
}

func readSaved(path string) (savedRequest, error) {
	var s savedRequest
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err == nil && s.Method == "" {
		err = errors.New("it has no method: it was not made by --save")
	}
	if err != nil {
		return s, fmt.Errorf("saved request %s: %w", quote(path), err)
	}
	return s, nil
}
