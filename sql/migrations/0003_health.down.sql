DROP VIEW outbox.wal_history;
DROP FUNCTION outbox.subscription_activity;
DROP FUNCTION outbox.subtract_counts;
DROP FUNCTION outbox.sample_subscriptions;
DROP FUNCTION outbox.sample_wal;
