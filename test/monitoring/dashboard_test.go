package monitoring_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// dashboard is what is read of Grafana's JSON.
type dashboard struct {
	UID, Title    string
	SchemaVersion int
	Templating    struct {
		List []struct {
			Name, Type string
			Query      any
			Definition string
		}
	}
	Panels []panel
}

type panel struct {
	ID         int
	Type       string
	Title      string
	Datasource datasource
	GridPos    struct{ X, Y, W, H int }
	Targets    []struct {
		RefID, Expr string
		Datasource  datasource
	}
}

type datasource struct{ Type, UID string }

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	var d dashboard
	require.NoError(t, json.Unmarshal([]byte(text(t, dashboardFile)), &d))
	return d
}

// query is one of a panel's.
type query struct{ panel, expr string }

// queries are all of a dashboard, with Grafana's variables set: all jobs and instances.
func (d dashboard) queries() []query {
	var all []query
	set := strings.NewReplacer("$job", ".*", "$instance", ".*", "$__rate_interval", "10m")
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			all = append(all, query{p.Title, set.Replace(target.Expr)})
		}
	}
	return all
}

// It can be imported as it is, whatever the data source is called.
func TestDashboardIsWellFormed(t *testing.T) {
	t.Parallel()
	d := readDashboard(t)
	require.Equal(t, "walhook", d.UID)
	require.GreaterOrEqual(t, d.SchemaVersion, 39)
	require.Equal(t, "datasource", d.Templating.List[0].Type)
	ids, cells, variable := map[int]bool{}, map[[2]int]string{}, datasource{"prometheus", "${" + d.Templating.List[0].Name + "}"}
	for _, p := range d.Panels {
		require.False(t, ids[p.ID], "id of %s", p.Title)
		ids[p.ID] = true
		require.LessOrEqual(t, p.GridPos.X+p.GridPos.W, 24, p.Title)
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				cell := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				require.Empty(t, cells[cell], "%s lies over another panel", p.Title)
				cells[cell] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		require.Equal(t, variable, p.Datasource, p.Title)
		require.NotEmpty(t, p.Targets, p.Title)
		for _, target := range p.Targets {
			require.Equal(t, variable, target.Datasource, p.Title)
			require.Contains(t, target.Expr, `{job=~"$job", instance=~"$instance"`, p.Title)
		}
	}
}

// promtool parses the queries as a file of rules.
func TestDashboardQueriesAreValid(t *testing.T) {
	t.Parallel()
	rules := strings.Builder{}
	rules.WriteString("groups:\n- name: dashboard\n  rules:\n")
	for i, q := range readDashboard(t).queries() {
		_, _ = fmt.Fprintf(&rules, "  - record: panel:%d\n    expr: %q\n", i, q.expr)
	}
	promtool(t, "check", "rules", write(t, "dashboard.yaml", rules.String()))
}
