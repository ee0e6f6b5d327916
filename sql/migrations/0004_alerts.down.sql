DROP FUNCTION outbox.check_alerts(text, interval, int, bigint, bigint, jsonb);
DROP INDEX outbox.alerts_resolved;
