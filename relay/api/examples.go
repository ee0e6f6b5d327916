package api

// Examples of the description. A test decodes every one.
const (
	exampleCreate = `{"name": "Cardiology", "url": "https://example.com/hooks", "events": ["patient.*"],
		"filters": {"department": "cardiology"}, "secret": "correct horse battery staple", "max_retries": 3, "retry_delay": 60, "timeout": 30}`

	exampleWebhook = `{"id": "019c0b0e-7a30-7e5d-8c5a-0f2f4c7e1a10", "tenant": "", "name": "Cardiology", "description": "",
		"url": "https://example.com/hooks", "events": ["patient.*"], "filters": {"department": "cardiology"}, "headers": {},
		"has_secret": true, "signature": "sha256", "payload_format": "envelope", "payload_version": 1, "max_retries": 3,
		"retry_delay": 60, "timeout": 30, "ordering": "none", "max_in_flight": 16, "rate_limit": null, "batch_size": 1,
		"batch_wait": 0, "verification": "none", "is_active": true, "status": "valid",
		"created_at": "2026-01-31T12:00:00Z", "updated_at": "2026-01-31T12:00:00Z", "revision": 7}`

	exampleCall = `{"delivery_id": "019c0b0e-7a30-8e5d-8c5a-0f2f4c7e1a12", "event_id": "019c0b0e-7a30-7e5d-8c5a-0f2f4c7e1a11",
		"webhook_id": "019c0b0e-7a30-7e5d-8c5a-0f2f4c7e1a10", "attempt": 1, "url": "https://example.com/hooks", "method": "POST",
		"request_headers": {"Content-Type": "application/json"}, "payload": "{\"event_type\": \"patient.created\"}", "status": 200,
		"response_body": "ok", "duration_ms": 12.5, "error": null, "attempted_at": "2026-01-31T12:00:00Z", "succeeded": true}`
)
