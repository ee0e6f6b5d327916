DROP FUNCTION outbox.sample_system(text);
DROP VIEW outbox.system_now;
DROP TABLE outbox.system_samples;
ALTER TABLE outbox.event_types DROP COLUMN validation;
DROP TABLE outbox.api_tokens;
