package admin

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/harness"
)

func TestCursorsBringTheirSortKeysBack(t *testing.T) {
	t.Parallel()
	at, id := time.Date(2026, 5, 4, 3, 2, 1, 123456000, time.UTC), uuid.New()
	cursor := encodeCursor(at, id, 7, "patient.<created>")
	require.Regexp(t, "^[A-Za-z0-9_-]+$", cursor, "it is put into URLs as it is")

	var gotAt time.Time
	var gotID uuid.UUID
	var number int
	var name string
	require.NoError(t, decodeCursor(cursor, &gotAt, &gotID, &number, &name))
	require.Equal(t, []any{at, id, 7, "patient.<created>"}, []any{gotAt, gotID, number, name})

	require.NoError(t, decodeCursor(encodeCursor(strings.Repeat(`"`, 255)), &name), "the longest sort key there is")
}

func TestForgedCursorsAreRefused(t *testing.T) {
	t.Parallel()
	encode := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	for what, cursor := range map[string]string{
		"empty":            "",
		"no base64":        "%%%",
		"padded":           base64.URLEncoding.EncodeToString([]byte(`[1,"a",10]`)),
		"loose base64":     strings.TrimSuffix(encode(`[1,"a",1]`), "Q") + "R",
		"line break":       encode(`[1,"a",1]`)[:4] + "\n" + encode(`[1,"a",1]`)[4:],
		"no JSON":          encode(`[1,"a",1`),
		"trailing bytes":   encode(`[1,"a",1]x`),
		"an object":        encode(`{"0":1}`),
		"another version":  encode(`[2,"a",1]`),
		"no version":       encode(`["a",1]`),
		"too few":          encode(`[1,"a"]`),
		"too many":         encode(`[1,"a",1,1]`),
		"wrong type":       encode(`[1,1,"a"]`),
		"null":             encode(`[1,null,1]`),
		"NUL":              encode(`[1,"\u0000",1]`),
		"too large number": encode(`[1,"a",1e99]`),
		"long":             encode(`[1,"` + strings.Repeat("a", maxCursor) + `",1]`),
		"deep":             encode(strings.Repeat("[", 300)),
	} {
		var name string
		var number int
		err := decodeCursor(cursor, &name, &number)
		var refused *Error
		require.ErrorAs(t, err, &refused, what)
		require.Equal(t, Invalid, refused.Kind, what)
		require.Equal(t, "cursor", refused.Field, what)
		require.Contains(t, refused.Message, "take that of the page before", what)
	}
}

func FuzzCursor(f *testing.F) {
	f.Add(encodeCursor(time.Now(), uuid.New(), 3, "a"))
	f.Add("")
	f.Add(base64.RawURLEncoding.EncodeToString([]byte(`[1,"2026-01-01T00:00:00Z","",0,"\u0000"]`)))
	f.Fuzz(func(t *testing.T, cursor string) {
		var at, againAt time.Time
		var id, againID uuid.UUID
		var number, againNumber int
		var name, againName string
		if decodeCursor(cursor, &at, &id, &number, &name) != nil {
			return
		}
		require.NoError(t, decodeCursor(encodeCursor(at, id, number, name), &againAt, &againID, &againNumber, &againName))
		require.True(t, at.Equal(againAt))
		require.Equal(t, []any{id, number, name}, []any{againID, againNumber, againName})
		require.NotContains(t, name, "\x00")
	})
}

func TestPageLimit(t *testing.T) {
	t.Parallel()
	for limit, want := range map[int]int{0: DefaultLimit, 1: 1, MaxLimit: MaxLimit} {
		got, err := pageLimit(limit)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	for _, limit := range []int{-1, MaxLimit + 1} {
		_, err := pageLimit(limit)
		var refused *Error
		require.ErrorAs(t, err, &refused)
		require.Equal(t, "limit", refused.Field)
	}
}

func TestPages(t *testing.T) {
	t.Parallel()
	db := harness.Connect(t, harness.Database(t))
	for _, c := range []struct {
		n, size int
		want    Page[int]
	}{
		{0, 0, Page[int]{Items: []int{}}},
		{2, 0, Page[int]{Items: []int{1, 2}}},
		{3, 0, Page[int]{Items: []int{1, 2}, Next: encodeCursor(2)}},
		{2, pageBytes - 1, Page[int]{Items: []int{1, 2}}},
		{2, pageBytes, Page[int]{Items: []int{1}, Next: encodeCursor(1)}},
		{1, pageBytes + 1, Page[int]{Items: []int{1}}},
	} {
		rows, err := db.Query(t.Context(), "SELECT generate_series(1, $1::int)", c.n)
		require.NoError(t, err)
		page, err := collectPage(rows, 2, pgx.RowTo[int], func(*int) int { return c.size }, func(n *int) string { return encodeCursor(*n) })
		require.NoError(t, err)
		require.Equal(t, c.want, page)
	}
}
