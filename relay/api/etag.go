package api

import (
	"net/http"
	"strconv"
	"strings"
)

// etag is the tag of a revision.
func etag(revision int) string { return `"` + strconv.Itoa(revision) + `"` }

// condition is an If-Match header (RFC 9110, section 13.1.1).
type condition struct {
	any       bool  // no header, or *
	revisions []int // that may be there; weak tags match none
}

// parseIfMatch reads the header. Tags that were never ours match nothing; what is no tag is refused.
func parseIfMatch(header string) (condition, *problem) {
	var c condition
	header = strings.Trim(header, " \t")
	if header == "" || header == "*" {
		return condition{any: true}, nil
	}
	for tag := range strings.SplitSeq(header, ",") {
		tag = strings.Trim(tag, " \t")
		strong, weak := strings.CutPrefix(tag, "W/")
		if len(strong) < 2 || strong[0] != '"' || strong[len(strong)-1] != '"' || strings.ContainsAny(strong[1:len(strong)-1], `"`) {
			return c, wrong(http.StatusBadRequest, "header.If-Match", `must be a tag as in ETag: "7", or *`).with(header)
		}
		revision, err := strconv.Atoi(strong[1 : len(strong)-1])
		if !weak && err == nil && revision > 0 && etag(revision) == strong {
			c.revisions = append(c.revisions, revision)
		}
	}
	return c, nil
}
