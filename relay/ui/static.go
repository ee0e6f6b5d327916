package ui

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"mime"
	"net/http"
	"path"
)

// static is what pages load: style sheet and scripts, served under /static/ with a hash of their contents in the path, so
// that browsers may keep them for ever.
//
//go:embed static
var staticFiles embed.FS

// staticHash changes with any of the files.
var staticHash = hashStatic()

func hashStatic() string {
	h := sha256.New()
	err := fs.WalkDir(staticFiles, "static", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := staticFiles.ReadFile(file)
		h.Write([]byte(file))
		h.Write(b)
		return err
	})
	if err != nil {
		panic(err) // they are embedded
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

func staticPath(name string) string { return "/static/" + staticHash + "/" + name }

// serveStatic answers anybody: these files are public as the program is.
func serveStatic(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	b, err := staticFiles.ReadFile("static/" + name)
	if err != nil || r.PathValue("hash") != staticHash {
		send(w, http.StatusNotFound, "text/plain; charset=utf-8", nil)
		return
	}
	contentType := mime.TypeByExtension(path.Ext(name))
	switch path.Ext(name) { // the machine's own table of types must not decide what runs
	case ".js":
		contentType = "text/javascript; charset=utf-8"
	case ".css":
		contentType = "text/css; charset=utf-8"
	case ".svg":
		contentType = "image/svg+xml"
	case ".md":
		contentType = "text/plain; charset=utf-8"
	}
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	send(w, 0, contentType, b)
}
