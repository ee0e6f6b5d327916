package monitoring_test

import (
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRulesAreValid(t *testing.T) {
	t.Parallel()
	promtool(t, "check", "rules", rulesFile)
	promtool(t, "check", "config", "../../config/prometheus/prometheus.yaml")
}

func TestRulesFireWhenTheyShould(t *testing.T) {
	t.Parallel()
	promtool(t, "test", "rules", rulesTestFile)
}

// A rule without a test of both kinds could fire always, or never.
func TestEveryRuleIsTested(t *testing.T) {
	t.Parallel()
	rules, tests := text(t, rulesFile), text(t, rulesTestFile)
	found := regexp.MustCompile(`(?m)^ +- alert: (\w+)$`).FindAllStringSubmatch(rules, -1)
	require.NotEmpty(t, found)
	for _, rule := range found {
		name := rule[1]
		require.Regexp(t, `alertname: `+name+`\}`, tests, "a moment at which it does not fire")
		require.Regexp(t, `alertname: `+name+`\n +exp_alerts:\n +- exp_labels: \{severity: `, tests, "a moment at which it fires")
		require.Regexp(t, `(?s)- alert: `+name+`\n +expr: .+?\n +labels: \{severity: (info|warning|critical)\}\n +annotations:\n +summary: .+?\n +description: `, rules)
	}
}
