package delivery_test

import (
	"cmp"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/walhook/walhook/relay/delivery"
)

func TestLSNIsWrittenAsPostgresDoes(t *testing.T) {
	for lsn, text := range map[delivery.LSN]string{
		0: "0/0", 1: "0/1", 0x16_B374_D848: "16/B374D848", 1 << 32: "1/0", 1<<64 - 1: "FFFFFFFF/FFFFFFFF",
	} {
		require.Equal(t, text, lsn.String())
		back, err := delivery.ParseLSN(text)
		require.NoError(t, err)
		require.Equal(t, lsn, back)
	}
}

func TestParseLSNRefusesAndNames(t *testing.T) {
	for _, text := range []string{"", "16", "16-B374D848", "/", "16/", "/B3", "x/0", "0/x", "100000000/0", "0/100000000", "-1/0", "0/0/0", " 0/0"} {
		_, err := delivery.ParseLSN(text)
		require.ErrorContains(t, err, `"`+text+`" is not an LSN`)
	}
}

// The two kinds of position, in the order of two neighbouring transactions: the second one's commit record
// begins where the first one's ends, which is as near as they come.
func TestPositionsOrderWithinAndAcrossTransactions(t *testing.T) {
	ordered := []delivery.Position{
		{},                   // nothing yet
		{LSN: 90},            // an idle position before
		{LSN: 100},           // the end of what came before
		{LSN: 100, Index: 1}, // inside: the commit record begins at 100
		{LSN: 100, Index: 2},
		{LSN: 160},           // its end
		{LSN: 160, Index: 1}, // the neighbour, which begins there
		{LSN: 220},
	}
	for i, p := range ordered {
		for j, o := range ordered {
			require.Equal(t, cmp.Compare(i, j), p.Compare(o), "%v and %v", p, o)
			require.Equal(t, i > j, p.After(o), "%v after %v", p, o)
		}
	}
	require.Equal(t, "0/A0+1", delivery.Position{LSN: 160, Index: 1}.String())
}

func TestAnyLSNSurvivesItsText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lsn := delivery.LSN(rapid.Uint64().Draw(t, "lsn"))
		back, err := delivery.ParseLSN(lsn.String())
		if err != nil || back != lsn {
			t.Fatalf("%d became %q, then %d, %v", lsn, lsn, back, err)
		}
	})
}
