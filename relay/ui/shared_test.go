package ui

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestOneLooksForAllWhoAsk(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		looks, release := 0, make(chan struct{})
		s := newShared(10*time.Second, func(context.Context) (int, error) {
			looks++
			<-release
			return looks, nil
		})
		results := make(chan int, 5)
		for range 5 {
			go func() {
				n, _, err := s.get(t.Context())
				require.NoError(t, err)
				results <- n
			}()
		}
		synctest.Wait()
		close(release)
		for range 5 {
			require.Equal(t, 1, <-results)
		}

		<-time.After(9 * time.Second) // of the bubble's clock
		n, at, err := s.get(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, n)
		require.Equal(t, 9*time.Second, time.Since(at))
		<-time.After(time.Second)
		n, _, err = s.get(t.Context())
		require.NoError(t, err)
		require.Equal(t, 2, n)
	})
}

func TestALookGoesOnWithoutWhoBeganIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := newShared(time.Minute, func(ctx context.Context) (string, error) {
			<-release
			return "found", ctx.Err()
		})
		first, leave := context.WithCancel(t.Context())
		go func() { _, _, _ = s.get(first) }()
		synctest.Wait()
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _, err := s.get(impatient)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		leave()
		close(release)
		found, _, err := s.get(t.Context())
		require.NoError(t, err)
		require.Equal(t, "found", found)
	})
}

func TestALookEndsSometime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newShared(time.Minute, func(ctx context.Context) (int, error) {
			<-ctx.Done()
			return 0, context.Cause(ctx)
		})
		began := time.Now()
		_, _, err := s.get(t.Context())
		require.ErrorContains(t, err, "longer than 30s")
		require.Equal(t, longestLook, time.Since(began))
	})
}

func TestFailuresAreNotKept(t *testing.T) {
	t.Parallel()
	looks := 0
	s := newShared(time.Hour, func(context.Context) (int, error) {
		if looks++; looks == 1 {
			return 0, errors.New("away")
		} else if looks == 2 {
			panic("broken")
		}
		return looks, nil
	})
	_, _, err := s.get(t.Context())
	require.EqualError(t, err, "away")
	require.Panics(t, func() { _, _, _ = s.get(t.Context()) })
	n, _, err := s.get(t.Context())
	require.NoError(t, err)
	require.Equal(t, 3, n)
}

func TestShownTextsAreIndentedAndBounded(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text string
		most int
		want shown
	}{
		"json":        {`{"a":[1,12345678901234567890.10]}`, 100, shown{Text: "{\n  \"a\": [\n    1,\n    12345678901234567890.10\n  ]\n}", Bytes: 33}},
		"no json":     {"not { json", 100, shown{Text: "not { json", Bytes: 10}},
		"nothing":     {"", 100, shown{}},
		"cut":         {"abcdef", 3, shown{Text: "abc", Cut: true, Bytes: 6}},
		"cut in a é":  {"abé", 3, shown{Text: "ab", Cut: true, Bytes: 4}},
		"cut after é": {"aéb", 3, shown{Text: "aé", Cut: true, Bytes: 4}},
		"quoted":      {`["` + strings.Repeat(`\"[`, 50) + `"]`, 1000, shown{Text: "[\n  \"" + strings.Repeat(`\"[`, 50) + "\"\n]", Bytes: 154}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, c.want, show(c.text, c.most))
		})
	}
	nested := strings.Repeat("[", 5000) + strings.Repeat("]", 5000)
	require.Equal(t, shown{Text: nested, Bytes: len(nested)}, show(nested, len(nested)), "its indentation would have 50 MB")
}

func FuzzShow(f *testing.F) {
	f.Add(`{"a": [1, "\"[", null]}`, 10)
	f.Add("[[[[\\\"", 3)
	f.Add("é\xff", 1)
	f.Fuzz(func(t *testing.T, text string, most int) {
		most = max(0, most)%1000 + 4 // a character fits
		s := show(text, most)
		require.LessOrEqual(t, len(s.Text), most)
		require.Equal(t, len(text), s.Bytes)
	})
}
