package config_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/config"
)

func TestChangedNamesEverySettingThatDiffers(t *testing.T) {
	t.Parallel()
	before := config.Default()
	before.DatabaseURL = "postgres://u:one@h/d"
	after := before
	require.Empty(t, config.Changed(before, after))
	after.Delivery.AllowPorts = config.List{}
	require.Empty(t, config.Changed(before, after), "an empty list is none")

	after.DatabaseURL = "postgres://u:two@h/d"
	after.Delivery.AllowHTTP = true
	after.Delivery.AllowNetworks = config.List{"10.0.0.0/8"}
	after.Retention.Events = time.Hour
	require.Equal(t, []string{"database_url", "delivery.allow_http", "delivery.allow_networks", "retention.events"}, config.Changed(before, after))
}
