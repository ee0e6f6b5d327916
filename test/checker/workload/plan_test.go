package workload

import (
	"encoding/json"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/test/checker/history"
)

// plans decides on the first transactions of a writer.
func plans(t *testing.T, seed, writer uint64, n int) []plan {
	t.Helper()
	random := New(Options{Seed: seed}).stream(writer)
	all := make([]plan, n)
	for i := range all {
		all[i] = decide(random)
	}
	return all
}

func TestASeedDecides(t *testing.T) {
	t.Parallel()
	require.Equal(t, plans(t, 1, 2, 200), plans(t, 1, 2, 200))
	require.NotEqual(t, plans(t, 1, 2, 200), plans(t, 1, 3, 200), "another writer")
	require.NotEqual(t, plans(t, 1, 2, 200), plans(t, 2, 2, 200), "another seed")
}

func TestTransactionsAreOfEveryShape(t *testing.T) {
	t.Parallel()
	const n = 5000
	var rolledBack, prepared, withSavepoints, undone int
	ways, endings := map[way]int{}, map[fate]int{}
	types, tenants, rows := map[string]int{}, map[string]int{}, 0
	for _, p := range plans(t, 1, 0, n) {
		require.Positive(t, p.rows())
		require.LessOrEqual(t, p.rows(), mostRows)
		rows += p.rows()
		switch p.ending {
		case rollBack:
			rolledBack++
		case prepare:
			prepared++
			endings[fate{commit: p.fate.commit, elsewhere: p.fate.elsewhere}]++
		}
		if len(p.steps) > 0 && p.open() {
			withSavepoints++
		}
		if len(p.write().Undone) > 0 {
			undone++
		}
		for _, s := range p.steps {
			for _, e := range s.events {
				ways[s.way]++
				types[e.typ]++
				tenants[e.tenant]++
			}
		}
	}
	require.InDelta(t, 0.15, float64(rolledBack)/n, 0.03)
	require.InDelta(t, 0.05, float64(prepared)/n, 0.02)
	require.Len(t, endings, 4, "of prepared transactions")
	require.InDelta(t, 0.20, float64(withSavepoints)/n, 0.03)
	require.Greater(t, undone, n/20)
	require.InDelta(t, 0.10, float64(ways[byEmit])/float64(rows), 0.05)
	require.Len(t, ways, 4)
	require.Len(t, types, len(eventTypes))
	require.InDelta(t, 0.20, 1-float64(tenants[""])/float64(rows), 0.03)
	t.Logf("%.1f events a transaction, by way %v", float64(rows)/n, ways)
}

// open reports whether the plan sets savepoints.
func (p *plan) open() bool {
	for _, s := range p.steps {
		if s.kind == savepoint {
			return true
		}
	}
	return false
}

// Every number is of its own, and as an integer where the judge looks for it.
func TestEventsAreNumbered(t *testing.T) {
	t.Parallel()
	var last int64
	for _, p := range plans(t, 1, 0, 500) {
		p.number(func() int64 { last++; return last })
		w := p.write()
		require.Len(t, append(w.Kept, w.Undone...), p.rows())
		for _, s := range p.steps {
			for _, e := range s.events {
				text, err := e.json()
				require.NoError(t, err)
				require.True(t, json.Valid([]byte(text)), text)
				require.Equal(t, e.payload.N, history.Number([]byte(text)), text)
			}
		}
	}
}

func TestSavepointsDecideWhatIsKept(t *testing.T) {
	t.Parallel()
	one := func(n int64) step { return step{events: []event{{payload: payload{N: n}}}} }
	set := func(depth int) step { return step{kind: savepoint, depth: depth} }
	end := func(how kind, depth int) step { return step{kind: how, depth: depth} }
	for name, tt := range map[string]struct {
		steps        []step
		kept, undone []int64
	}{
		"rolled back and still set":       {[]step{one(1), set(0), one(2), end(rollBackTo, 0), one(3), end(rollBackTo, 0), one(4)}, []int64{1, 4}, []int64{2, 3}},
		"released, then undone by outer":  {[]step{set(0), set(1), one(1), end(release, 1), one(2), end(rollBackTo, 0), one(3)}, []int64{3}, []int64{1, 2}},
		"outer releases both":             {[]step{set(0), one(1), set(1), one(2), end(release, 0), set(0), one(3), end(rollBackTo, 0)}, []int64{1, 2}, []int64{3}},
		"inner undone, outer left open":   {[]step{set(0), one(1), set(1), one(2), end(rollBackTo, 1), one(3)}, []int64{1, 3}, []int64{2}},
		"outer undone, with inner undone": {[]step{set(0), one(1), set(1), one(2), end(rollBackTo, 1), end(rollBackTo, 0)}, []int64{}, []int64{2, 1}},
	} {
		p := plan{steps: tt.steps}
		require.Equal(t, tt.kept, p.write().Kept, name)
		require.Equal(t, tt.undone, p.write().Undone, name)
	}
}

func TestChangesAreOfEveryShape(t *testing.T) {
	t.Parallel()
	existing := make([]subscription, fewestSubscriptions+1)
	for i := range existing {
		existing[i] = subscription{ID: uuid.New(), Active: i > 0}
	}
	places := map[string]int{}
	for i := range 1000 {
		w := New(Options{Seed: 1})
		decideOnce := func() plan {
			c := changer{w, w.stream(changerStream + uint64(i)), i, existing}
			return c.decide()
		}
		p := decideOnce()
		require.Equal(t, p, decideOnce(), "change %d", i)
		for j, s := range p.steps {
			if s.kind != alter {
				continue
			}
			places["last"] += toInt(j == len(p.steps)-1 && j > 0)
			places["alone"] += toInt(len(p.steps) == 1)
			places["between events"] += toInt(j > 0 && j < len(p.steps)-1 && len(p.steps[j-1].events) > 0 && len(p.steps[j+1].events) > 0)
			places["first"] += toInt(j == 0 && len(p.steps) > 1)
			places["in a savepoint"] += toInt(p.open())
			places["rolled back"] += toInt(p.ending == rollBack)
		}
	}
	for _, place := range []string{"first", "last", "alone", "between events", "in a savepoint", "rolled back"} {
		require.Greater(t, places[place], 20, place)
	}
}

func toInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
