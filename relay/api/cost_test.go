package api

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What a check costs grows with the size of the body, and not with the product of a name's length and how much it holds.
func TestNamesAreNotCopiedForEachElement(t *testing.T) {
	t.Parallel()
	name := strings.Repeat("a", 400_000)
	body := []byte(`{"` + name + `": [` + strings.Repeat("1,", 250_000) + `1]}`)
	began := time.Now()
	require.Nil(t, checkUnique(body, "body"))
	require.Less(t, time.Since(began), 2*time.Second)
	p := checkUnique([]byte(`{"`+name+`": [{"b": 1, "b": 2}]}`), "body")
	require.NotNil(t, p)
	require.Less(t, len(p.Detail), 500)
}
