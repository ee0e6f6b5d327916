// Package config holds the relay's settings: one struct, its defaults, and where values come from. Flags
// win over environment variables, these over walhook.yaml, and that over the defaults:
//
//	cfg, err := config.Load(path, os.Environ()) // defaults, file, environment
//	err = cfg.SetFlags(flags)                   // flags that config.Flags registered and the user gave
//	err = cfg.Validate()
//
// The struct's tags are the single source of every key's name, variable, limits and description; Keys lists
// them.
package config

import (
	_ "embed"
	"time"
)

// Annotated is walhook.yaml with every key at its default and a comment on each.
//
//go:embed walhook.yaml
var Annotated string

// Config is everything that can be set. Its tags: yaml is the key, env the variable after WALHOOK_ and the
// group's prefix, min and max the limits (inclusive), oneof the choices, form how a list is written, help the
// description.
type Config struct {
	// The database.

	DatabaseURL Secret `yaml:"database_url" env:"DATABASE_URL" help:"where the application's Postgres is; must allow replication, so not through a pooler"`
	Slot        string `yaml:"slot" env:"SLOT" help:"name of the replication slot; relays with the same slot are one relay and its standbys"`

	OnLostSlot string `yaml:"on_lost_slot" env:"ON_LOST_SLOT" oneof:"recover halt" help:"what to do when the slot is lost or skipped something: recover what is missing from outbox.events, or halt"`

	// The process.

	Listen        string `yaml:"listen" env:"LISTEN" help:"address of API, dashboard, health and metrics"`
	PathPrefix    string `yaml:"path_prefix" env:"PATH_PREFIX" form:"/ and a path without / at its end" help:"what the paths of API and dashboard begin with, behind a reverse proxy that keeps it; health and metrics stay at the root"`
	MetricsListen string `yaml:"metrics_listen" env:"METRICS_LISTEN" help:"address of metrics (and of health once more), which are then not on listen"`
	LogLevel      string `yaml:"log_level" env:"LOG_LEVEL" oneof:"trace debug info warn error" help:"least severe messages logged"`
	LogFormat     string `yaml:"log_format" env:"LOG_FORMAT" oneof:"auto json console" help:"form of the log on standard error; auto is console on a terminal, json otherwise"`

	// API and dashboard, on listen.
	API struct {
		Enabled bool   `yaml:"enabled" env:"ENABLED" oneof:"true false" help:"serve REST API and dashboard"`
		Token   Secret `yaml:"token" env:"TOKEN" form:"20 to 255 characters" help:"a first token, with every scope and for all tenants; better given as WALHOOK_API_TOKEN"`
	} `yaml:"api" envPrefix:"API_"`

	// Recording: how often finished deliveries and the checkpoint are written.
	Record struct {
		Interval time.Duration `yaml:"interval" env:"INTERVAL" min:"1ms" max:"1m" help:"longest time between record transactions while there is something to record; after a crash the deliveries of the last one are sent again"`
	} `yaml:"record" envPrefix:"RECORD_"`

	// Memory: what may wait there to be recorded. At either bound recording begins at once.
	Memory struct {
		MaxUnrecorded      int   `yaml:"max_unrecorded" env:"MAX_UNRECORDED" min:"1" max:"1000000" help:"deliveries held in memory before they are recorded"`
		MaxUnrecordedBytes Bytes `yaml:"max_unrecorded_bytes" env:"MAX_UNRECORDED_BYTES" min:"1MiB" max:"64GiB" help:"size of the events held in memory before they are recorded"`
	} `yaml:"memory" envPrefix:"MEMORY_"`

	// Sending.
	Delivery struct {
		MaxSenders  int           `yaml:"max_senders" env:"MAX_SENDERS" min:"1" max:"100000" help:"requests in flight at once, over all subscriptions"`
		SpillAfter  time.Duration `yaml:"spill_after" env:"SPILL_AFTER" min:"1ms" max:"5m" help:"how long recording waits for a first attempt to end before the delivery goes to the queue"`
		GracePeriod time.Duration `yaml:"grace_period" env:"GRACE_PERIOD" min:"0s" max:"10m" help:"how long a stopping relay waits for requests in flight"`

		// Where requests may go. None of it can be set in SQL: whoever may write a subscription must not widen it.

		Origin        string `yaml:"origin" env:"ORIGIN" help:"who asks receivers for their consent in the CloudEvents handshake, as a DNS name"`
		AllowHTTP     bool   `yaml:"allow_http" env:"ALLOW_HTTP" oneof:"true false" help:"let requests leave this machine unencrypted"`
		AllowLoopback string `yaml:"allow_loopback" env:"ALLOW_LOOPBACK" oneof:"auto always never" help:"let requests go to this machine's loopback addresses; auto does when the database is reached over loopback or a Unix socket"`
		AllowNetworks List   `yaml:"allow_networks" env:"ALLOW_NETWORKS" form:"networks and addresses, comma-separated" help:"private or reserved networks that requests may go to"`
		AllowPorts    List   `yaml:"allow_ports" env:"ALLOW_PORTS" form:"ports and ranges, comma-separated" help:"the only ports that requests may go to; none given: 80, 443 and those from 1024 except well-known ones of databases and brokers"`
		NAT64Prefixes List   `yaml:"nat64_prefixes" env:"NAT64_PREFIXES" form:"IPv6 networks of 32, 40, 48, 56, 64 or 96 bits, comma-separated" help:"prefixes of this network's NAT64; what is behind them is judged by the IPv4 address inside"`
		Proxy         Secret `yaml:"proxy" env:"PROXY" help:"proxy that all requests go through (http, https or socks5 URL); where they may go is then its concern alone"`
	} `yaml:"delivery" envPrefix:"DELIVERY_"`

	// The queue of retries and spilled deliveries.
	Queue struct {
		LeaseMargin  time.Duration `yaml:"lease_margin" env:"LEASE_MARGIN" min:"1s" max:"1h" help:"how long a claimed delivery stays claimed beyond its timeout; after a crash it is tried again that much later"`
		PollInterval time.Duration `yaml:"poll_interval" env:"POLL_INTERVAL" min:"10ms" max:"5m" help:"longest time between looks for due deliveries"`
	} `yaml:"queue" envPrefix:"QUEUE_"`

	// Replays of past events.
	Replay struct {
		Rate int `yaml:"rate" env:"RATE" min:"1" max:"1000000" help:"deliveries a second that replays may queue, all together"`
	} `yaml:"replay" envPrefix:"REPLAY_"`

	// Retention: how long rows are kept before their partition is dropped.
	Retention struct {
		Events          time.Duration `yaml:"events" env:"EVENTS" min:"1h" max:"36500d" help:"how long published events are kept and can be replayed"`
		Attempts        time.Duration `yaml:"attempts" env:"ATTEMPTS" min:"1h" max:"36500d" help:"how long the calls log is kept"`
		DeadLetters     time.Duration `yaml:"dead_letters" env:"DEAD_LETTERS" min:"1h" max:"36500d" help:"how long dead letters are kept and can be redelivered"`
		PartitionsAhead time.Duration `yaml:"partitions_ahead" env:"PARTITIONS_AHEAD" min:"24h" max:"365d" help:"how far ahead partitions are made, so that a relay that is down for that long costs nothing"`
	} `yaml:"retention" envPrefix:"RETENTION_"`

	// Secrets of subscriptions at rest: the keys that decrypt them.
	Secrets struct {
		KeysetFile string `yaml:"keyset_file" env:"KEYSET_FILE" help:"file with the keyset that encrypts stored secrets; only its owner and group may read it"`
		Keyset     Secret `yaml:"keyset" env:"KEYSET" help:"the keyset itself, where there is no file; better given as WALHOOK_SECRETS_KEYSET"`
	} `yaml:"secrets" envPrefix:"SECRETS_"`

	// The replication connection.
	Replication struct {
		StatusInterval time.Duration `yaml:"status_interval" env:"STATUS_INTERVAL" min:"100ms" max:"10s" help:"longest time between status messages to Postgres; keep it under half of wal_sender_timeout"`
		Heartbeat      time.Duration `yaml:"heartbeat" env:"HEARTBEAT" min:"0s" max:"10m" help:"time between heartbeats through the WAL, which keep the slot moving and measure the round trip; 0s: none"`
		WALDiskSize    Bytes         `yaml:"wal_disk_size" env:"WAL_DISK_SIZE" min:"0B" max:"1048576GiB" help:"room for WAL on the server's disk, for the forecast; 0: what the file system says if Postgres runs on this machine"`
		ConnectTimeout time.Duration `yaml:"connect_timeout" env:"CONNECT_TIMEOUT" min:"100ms" max:"5m" help:"how long one attempt to connect may take"`
	} `yaml:"replication" envPrefix:"REPLICATION_"`

	// Alerts: rows of outbox.alerts, events of types walhook.alert.*, and log lines.
	Alerts struct {
		Interval            time.Duration `yaml:"interval" env:"INTERVAL" min:"0s" max:"1h" help:"time between looks for what is wrong; 0s: none"`
		NoActivity          time.Duration `yaml:"no_activity" env:"NO_ACTIVITY" min:"0s" max:"365d" help:"alert when an active subscription has had no attempt for that long; 0s: never"`
		SuccessRate         int           `yaml:"success_rate" env:"SUCCESS_RATE" min:"0" max:"100" help:"alert when fewer than that many of 100 attempts of the last hour succeeded; 0: never"`
		ConsecutiveFailures int           `yaml:"consecutive_failures" env:"CONSECUTIVE_FAILURES" min:"0" max:"1000000" help:"alert when more attempts than that failed in a row; 0: never"`
		Timeouts            int           `yaml:"timeouts" env:"TIMEOUTS" min:"0" max:"1000000" help:"alert when more attempts than that timed out within the last hour; 0: never"`
		Lag                 time.Duration `yaml:"lag" env:"LAG" min:"0s" max:"365d" help:"alert when the oldest committed event that is not recorded is older; 0s: never"`
		SlotLostWithin      time.Duration `yaml:"slot_lost_within" env:"SLOT_LOST_WITHIN" min:"0s" max:"365d" help:"alert when the forecast says that the slot is lost or the disk full within that time; 0s: never"`
	} `yaml:"alerts" envPrefix:"ALERTS_"`
}

// Default returns the settings of a relay that nobody configured. DatabaseURL has no default.
func Default() Config {
	var c Config
	c.Slot = "walhook"
	c.OnLostSlot = "recover"
	c.Listen = "127.0.0.1:8080"
	c.LogLevel = "info"
	c.LogFormat = "auto"
	c.API.Enabled = true
	c.Record.Interval = 100 * time.Millisecond
	c.Memory.MaxUnrecorded = 8192
	c.Memory.MaxUnrecordedBytes = 32 << 20
	c.Delivery.MaxSenders = 256
	c.Delivery.SpillAfter = time.Second
	c.Delivery.GracePeriod = 20 * time.Second
	c.Delivery.Origin = "walhook"
	c.Delivery.AllowLoopback = "auto"
	c.Queue.LeaseMargin = 30 * time.Second
	c.Queue.PollInterval = 5 * time.Second
	c.Replay.Rate = 500
	c.Retention.Events = 7 * day
	c.Retention.Attempts = 7 * day
	c.Retention.DeadLetters = 30 * day
	c.Retention.PartitionsAhead = 7 * day
	c.Replication.StatusInterval = 10 * time.Second
	c.Replication.Heartbeat = 10 * time.Second
	c.Replication.ConnectTimeout = 10 * time.Second
	c.Alerts.Interval = 30 * time.Second
	c.Alerts.NoActivity = day
	c.Alerts.SuccessRate = 90
	c.Alerts.ConsecutiveFailures = 10
	c.Alerts.Timeouts = 5
	c.Alerts.Lag = 5 * time.Minute
	c.Alerts.SlotLostWithin = 6 * time.Hour
	return c
}

// Redacted returns the settings without passwords, for logs and for people.
func (c Config) Redacted() Config {
	c.DatabaseURL = Secret(c.DatabaseURL.String())
	c.Delivery.Proxy = Secret(c.Delivery.Proxy.String())
	c.API.Token = Secret(c.API.Token.String())
	c.Secrets.Keyset = Secret(c.Secrets.Keyset.String())
	return c
}
