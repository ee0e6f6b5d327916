package config

import (
	"errors"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// setYAML applies a file. Only the library's parser is used, not its decoder: values go through Set like
// those from anywhere else, and no error quotes the lines around it, where the database URL may stand.
func (c *Config) setYAML(path string, text []byte) error {
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return syntaxError(path, err)
	}
	f := yamlFile{path: path, config: c}
	for i, doc := range file.Docs {
		if i > 0 && doc.Body != nil {
			f.fail(doc.Body, "a second document begins: keep one")
			break
		}
		f.group("", doc.Body)
	}
	return errors.Join(f.problems...)
}

// syntaxError is the parser's complaint without the text around it.
func syntaxError(path string, err error) error {
	var e yaml.Error
	if errors.As(err, &e) && e.GetToken() != nil {
		return fmt.Errorf("%s: %s", place(path, e.GetToken()), e.GetMessage())
	}
	return fmt.Errorf("%s: %w", path, err)
}

// place words where a token stands: file:line.
func place(path string, t *token.Token) string {
	return fmt.Sprintf("%s:%d", path, t.Position.Line)
}

// yamlFile is a file being applied.
type yamlFile struct {
	path     string
	config   *Config
	problems []error
}

// fail notes a problem at a node.
func (f *yamlFile) fail(at ast.Node, format string, args ...any) {
	f.problems = append(f.problems, fmt.Errorf("%s: %w", place(f.path, at.GetToken()), fmt.Errorf(format, args...)))
}

// group applies a mapping whose keys continue the given path. Nothing at all, as when each key is commented
// out, is an empty one.
func (f *yamlFile) group(path string, node ast.Node) {
	switch n := node.(type) {
	case nil, *ast.NullNode, *ast.CommentGroupNode:
	case *ast.MappingNode:
		for _, v := range n.Values {
			f.pair(path, v)
		}
	case *ast.MappingValueNode:
		f.pair(path, n)
	default:
		if path == "" {
			f.fail(node, "the file is no mapping: write lines like listen: 127.0.0.1:8080")
			return
		}
		f.fail(node, "%s is a group: write its keys indented on the lines below", strings.TrimSuffix(path, "."))
	}
}

// pair applies one key with its value or group.
func (f *yamlFile) pair(path string, pair *ast.MappingValueNode) {
	name := path + pair.Key.GetToken().Value
	if _, ok := find(name); ok {
		f.value(name, pair)
		return
	}
	for _, k := range keys {
		if strings.HasPrefix(k.Name, name+".") {
			f.group(name+".", pair.Value)
			return
		}
	}
	f.fail(pair.Key, "%s: unknown key: %s", name, suggest(name, keyNames(), "remove it"))
}

// value sets one key.
func (f *yamlFile) value(name string, pair *ast.MappingValueNode) {
	switch v := pair.Value.(type) {
	case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		if err := f.config.Set(name, v.GetToken().Value); err != nil {
			f.fail(pair.Key, "%w", err)
		}
	case *ast.LiteralNode:
		if err := f.config.Set(name, strings.TrimSpace(v.Value.Value)); err != nil {
			f.fail(pair.Key, "%w", err)
		}
	case *ast.SequenceNode:
		f.list(name, pair.Key, v)
	case *ast.NullNode:
		f.fail(pair.Key, "%s: the value is empty: give one or leave the key out", name)
	default:
		f.fail(pair.Key, "%s: takes one plain value, without lists, groups, tags or anchors", name)
	}
}

// list sets one key to a list of plain values.
func (f *yamlFile) list(name string, key ast.Node, sequence *ast.SequenceNode) {
	if k, _ := find(name); k.Type != "list" {
		f.fail(key, "%s: takes one plain value, without lists, groups, tags or anchors", name)
		return
	}
	var elements List
	for _, v := range sequence.Values {
		switch v.(type) {
		case *ast.StringNode, *ast.IntegerNode:
			elements = append(elements, v.GetToken().Value)
		default:
			f.fail(key, "%s: takes a list of plain values", name)
			return
		}
	}
	if err := f.config.Set(name, elements.String()); err != nil {
		f.fail(key, "%w", err)
	}
}
