package ops

// DoctorCode is a kind of finding. Codes are stable: programs may rely on them.
type DoctorCode struct {
	Code     string   `json:"code"`
	Severity Severity `json:"severity"` // when it does not hold; some findings are milder, by their values
	Holds    string   `json:"what"`     // what should be
	Why      string   `json:"explanation"`
	Check    string   `json:"-"` // that finds it; empty: the relay's own prerequisites, or no single check
}

// DoctorCodes are all kinds of findings. The first group are what the relay refuses to run without, under the codes
// that it gives them itself.
var DoctorCodes = []DoctorCode{
	{"connection", SeverityError, "the database can be reached", "Everything else depends on it.", ""},
	{"version", SeverityError, "Postgres is 14 or later", "The relay uses what earlier versions do not have.", ""},
	{"standby_server", SeverityError, "the server is the primary", "A standby takes no writes, and the relay records what it delivered.", ""},
	{"encoding", SeverityError, "the database's encoding is UTF8", "A logical message arrives as it is stored, and JSON is UTF-8.", ""},
	{"replication_role", SeverityError, "the role may replicate", "The relay reads the write-ahead log through a replication slot. The attribute REPLICATION is not inherited from a group role.", ""},
	{"privileges", SeverityError, "the role has every right that the relay needs", "Without one of them the relay stops or halts when it comes to need it.", "privileges"},
	{"schema_missing", SeverityError, "schema outbox is there", "Events, subscriptions and the relay's own tables live there.", ""},
	{"checkpoint_missing", SeverityError, "the slot has a checkpoint", "Without it the relay does not know what it has delivered.", ""},
	{"other_slot", SeverityError, "the database is relayed through this slot only", "A second relay with another slot would deliver everything twice.", ""},
	{"slot_missing", SeverityError, "the replication slot exists", "What is committed without a slot is not in any stream; the relay recovers it from outbox.events, or halts, as on_lost_slot says.", ""},
	{"slot_lost", SeverityError, "the replication slot is valid", "Postgres has invalidated it: it leads nowhere any more.", ""},
	{"slot_ahead", SeverityError, "the slot is not ahead of the checkpoint", "Somebody advanced or re-created it: what lies between was never delivered.", ""},
	{"slot_foreign", SeverityError, "the slot is a pgoutput slot of this database", "Slots belong to the whole server: this one is somebody else's.", ""},
	{"publication_missing", SeverityError, "both publications exist", "Postgres says nothing about what is not published: events silently stop.", ""},
	{"publication_altered", SeverityError, "the publications leave nothing out", "Postgres says nothing about what is not published: events silently stop.", ""},
	{"catalog_changed", SeverityError, "tables and publications are those that the stream was opened with", "After one was re-created or altered, something may be missing from the stream.", ""},
	{"clone", SeverityError, "this is the cluster that the checkpoint was made in", "A copy of the database must not send what the original sends.", ""},

	{"wal_level", SeverityError, "wal_level is logical", "Lower levels do not log what logical decoding needs.", "server"},
	{"wal_level_pending", SeverityWarning, "wal_level stays logical after a restart", "A server whose wal_level is too low does not start as long as it has a logical slot.", "server"},
	{"autovacuum_off", SeverityWarning, "autovacuum is on", "The queue's rows are short-lived: without vacuum its tables only grow, and claims slow down.", "server"},
	{"commit_timestamps", SeverityInfo, "track_commit_timestamp is on", "With it, what is recovered after a lost slot bears its commit time; without it, the time when it was published.", "server"},
	{"decoding_memory", SeverityInfo, "logical_decoding_work_mem is 64 MB or more", "Transactions whose changes are larger are written to disk until they commit, which delays them.", "server"},
	{"version_end_of_life", SeverityWarning, "this major version of Postgres is maintained", "Nobody mends bugs or holes in it any more.", "version"},
	{"version_minor", SeverityWarning, "this minor release of Postgres is the latest known", "Minor releases mend bugs and holes, among them bugs of logical decoding; since those of 2026-08-13 a server loads only the output plugins that output_plugin_libraries lists.", "version"},
	{"replication_slots", SeverityError, "max_replication_slots leaves one free", "Without a free one no slot can be made, as walhook init does, or a relay that recovers a lost one.", "capacity"},
	{"wal_senders", SeverityError, "max_wal_senders leaves one free", "The relay takes one; without it, it cannot read.", "capacity"},
	{"slot_keep_size_unlimited", SeverityWarning, "max_slot_wal_keep_size is set", "As long as no relay reads the slot, Postgres keeps all WAL for it, until the disk is full and the database stops. With a limit the slot is lost instead, and what is missing comes from outbox.events.", "retention"},
	{"slot_keep_size_small", SeverityWarning, "max_slot_wal_keep_size is 1 GB or more", "A short stop of the relay, or one large transaction, loses the slot.", "retention"},
	{"slot_keep_size_beyond_disk", SeverityWarning, "max_slot_wal_keep_size is smaller than the disk for WAL", "The disk is full before the limit is reached, and the database stops.", "retention"},
	{"idle_slot_timeout", SeverityWarning, "idle_replication_slot_timeout is 0", "A slot that no relay reads for that long is invalidated at the next checkpoint, as over a long weekend.", "retention"},
	{"wal_sender_timeout", SeverityWarning, "wal_sender_timeout is at least twice replication.status_interval", "A shorter one ends the stream of a healthy relay now and then; with 0 a relay that vanished keeps the slot until TCP gives up, and no other takes over.", "timeouts"},
	{"fsync_off", SeverityWarning, "fsync is on", "A crash of the machine may destroy the database, with events whose publication was confirmed and the record of what was delivered.", "durability"},
	{"full_page_writes_off", SeverityWarning, "full_page_writes is on", "A crash of the machine may leave torn pages, which cannot be mended.", "durability"},
	{"synchronous_commit_off", SeverityWarning, "synchronous_commit is not off", "An application is told that its event is committed before that is on disk: what a crash loses is never delivered. (The relay's own sessions set it to on.)", "durability"},
	{"pooler", SeverityError, "the connection is direct", "Replication, LISTEN and advisory locks belong to one session of Postgres: a pooler between shares or ends it.", "connection"},
	{"database_tls", SeverityWarning, "the connection to another machine is encrypted", "Events, secrets and the role's password can be read on the way.", "connection"},
	{"replication_connection", SeverityError, "a replication connection can be opened", "The relay reads the slot over one. Poolers and proxies often do not pass it on.", "replication"},
	{"clock", SeverityWarning, "the clocks of this machine and of the database agree within 2 s", "Leases, retries and the timestamps of signatures are reckoned with both.", "clock"},
	{"managed_service", SeverityInfo, "the server is not a known managed service", "There, settings are changed through the provider, not by ALTER SYSTEM.", "managed"},
	{"superuser", SeverityWarning, "the role is no superuser", "The relay needs few rights. Who takes over a superuser's session has the whole server.", "role"},
	{"monitoring_rights", SeverityInfo, "the role sees all sessions", "Which session of another role holds WAL back, and since when, only members of pg_monitor are told.", "role"},
	{"public_rights", SeverityWarning, "PUBLIC has no rights on the tables", "Every role of the server could read secrets, or write what is delivered.", "public"},
	{"slot_inactive", SeverityInfo, "a relay reads the slot", "As long as none does, nothing is delivered, and Postgres keeps WAL for the slot.", "slots"},
	{"slot_at_risk", SeverityWarning, "the slot is far from being lost", "Postgres invalidates it when it holds more WAL than max_slot_wal_keep_size.", "slots"},
	{"orphan_slot", SeverityWarning, "no other slot is inactive", "An inactive slot holds WAL until the disk is full, and keeps vacuum from the catalogs.", "slots"},
	{"abandoned_slot", SeverityWarning, "no slot was left behind by a set-up", "An inactive slot holds WAL until the disk is full, and keeps vacuum from the catalogs.", "abandoned"},
	{"slot_failover", SeverityWarning, "a server with standbys has a failover slot", "After a failover to a standby the slot is gone; the relay recovers from outbox.events, but not what was published with outbox.emit().", "failover"},
	{"standby_slots_unset", SeverityWarning, "synchronized_standby_slots names the standbys", "The relay may deliver what no standby has yet: after a failover receivers know of events that the database does not.", "failover"},
	{"standby_slots_broken", SeverityError, "synchronized_standby_slots names active slots only", "The stream waits for each of them to confirm: nothing is delivered until then.", "failover"},
	{"long_transaction", SeverityWarning, "no transaction is older than an hour", "The slot keeps all WAL since it began, and vacuum removes nothing that is newer.", "sessions"},
	{"prepared_transaction", SeverityWarning, "no prepared transaction is older than an hour", "The slot keeps all WAL since it began, over restarts, until somebody ends it.", "prepared"},
	{"schema_version", SeverityError, "every migration is applied", "The program and the schema have to fit.", "schema"},
	{"replica_identity", SeverityError, "outbox.subscriptions has REPLICA IDENTITY FULL", "Without it the stream lacks large values that an update leaves alone, and Postgres may refuse updates.", "tables"},
	{"unlogged_table", SeverityError, "every table of schema outbox is logged", "A crash empties an unlogged table.", "tables"},
	{"row_security", SeverityWarning, "no table of schema outbox has row-level security", "A relay that policies apply to does not see all rows: some of its subscribers get nothing.", "tables"},
	{"trigger_disabled", SeverityError, "the triggers of outbox.subscriptions are enabled", "They number revisions and tell the relay of changes; without them it goes on with old settings.", "tables"},
	{"partitions_ahead", SeverityWarning, "partitions are made ahead", "Rows without one go to the DEFAULT partition, where retention deletes them row by row. A running relay makes them every hour.", "partitions"},
	{"default_partition_rows", SeverityWarning, "the DEFAULT partitions are empty", "Rows there have ids that are no UUIDv7 or times out of the ordinary, or came when a partition was missing: retention deletes them row by row, and a partition of their day cannot be made.", "defaults"},
	{"epochs_alternate", SeverityWarning, "the slot does not change hands all the time", "Relays that take it from each other, or restart again and again, send again what was not recorded.", "epochs"},
	{"recovered_gap", SeverityInfo, "the stream had no gap within the last week", "What was in outbox.events was recovered; what was published with outbox.emit() in the gap is gone.", "recoveries"},
	{"subscription_invalid", SeverityWarning, "every subscription is valid", "The relay cannot make requests for it: its deliveries wait.", "subscriptions"},
	{"subscription_unverified", SeverityWarning, "every receiver has agreed", "A subscription with verification gets nothing until its receiver has agreed.", "subscriptions"},
	{"queue_old", SeverityWarning, "nothing waits in the queue for longer than an hour", "A receiver fails or is too slow, or no relay runs.", "queue"},
	{"dead_letters", SeverityWarning, "there are no dead letters", "These deliveries were given up. They are kept for retention.dead_letters, and can be redelivered until then.", "dead"},
	{"alerts_standing", SeverityWarning, "no alert stands", "The relay has raised it, and it is not resolved.", "alerts"},
	{"secret_in_clear", SeverityWarning, "every stored secret is encrypted or a reference", "Although a keyset is configured, these can be read in the table, in WAL and in backups.", "secrets"},
	{"secret_unreadable", SeverityInfo, "every secret can be read from here", "It is the relay that must be able to read them; doctor sees its own environment and files.", "secrets"},
	{"listen_public", SeverityInfo, "API and metrics are bound to loopback", "Whoever reaches the address sees metrics and health. API and dashboard take a token, which, without TLS, can be read on the way.", "listen"},
	{"api_token_missing", SeverityInfo, "somebody has a token for API and dashboard", "Without one nobody can use them, and on another address than loopback the relay refuses to start.", "tokens"},
	{"api_token_expired", SeverityInfo, "no token has expired that was not revoked", "Whoever has it is refused.", "tokens"},
	{"url_refused", SeverityWarning, "every subscription's address is allowed", "The relay does not send there: every delivery fails until the policy or the subscription changes.", "urls"},
	{"url_unreachable", SeverityWarning, "every receiver can be connected to", "Its deliveries fail and wait in the queue until they are given up.", "urls"},
	{"certificate_invalid", SeverityWarning, "every receiver's certificate is valid", "The relay does not send to a receiver that cannot prove who it is.", "urls"},
	{"certificate_expires", SeverityWarning, "no receiver's certificate expires within 14 days", "When it has, every delivery fails.", "urls"},
	{"urls_unchecked", SeverityInfo, "every receiver's host was tried", "At most 100 are, and none through a proxy.", "urls"},

	{"check_failed", SeverityWarning, "every check could be made", "What was not looked at may be wrong.", ""},
}

// DoctorCodeOf returns the row of a code. One that is not in the table, of a relay that knows more, is an error without
// explanation.
func DoctorCodeOf(code string) DoctorCode {
	for _, c := range DoctorCodes {
		if c.Code == code {
			return c
		}
	}
	return DoctorCode{Code: code, Severity: SeverityError}
}
