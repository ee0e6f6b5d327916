// Package receiver is the other end of a webhook: it verifies what arrives, recognises what has come before, and
// hands events to handlers. It knows what walhook sends in all its formats, and the signatures of Standard
// Webhooks, GitHub, Stripe, Shopify and Slack whoever sends them.
//
//	verifier, err := receiver.NewVerifier(receiver.Options{
//		Scheme:  receiver.SHA256,
//		Secrets: []string{os.Getenv("WEBHOOK_SECRET")}, // two while a secret is being rotated
//	})
//	...
//	manager := receiver.NewManager(receiver.NewMemory(100_000, 48*time.Hour))
//	manager.On("patient.created", "welcome", func(ctx context.Context, e receiver.Event) error {
//		return sendWelcome(ctx, e.Data)
//	})
//	manager.On("patient.*", "search", func(ctx context.Context, e receiver.Event) error {
//		return reindex(ctx, e.Data)
//	})
//	endpoint := receiver.Endpoint{Verifier: verifier}
//	http.Handle("POST /webhooks", endpoint.Middleware(manager))
//
// A webhook is delivered at least once: when an answer is lost, or a handler fails, the same delivery comes again
// under the same id. An answer of 200 to 299 says that it need not come again; anything else asks for another
// attempt.
//
// # Exactly once
//
// A [Seen] store remembers the ids of what was handled. An id counts only once its handler has succeeded: a
// delivery that failed is forgotten and handled anew when it comes again, and one that arrives while the first is
// still at work is answered 409, so that it comes again as well. What remains is a crash between the handler's
// effect and the mark. A handler that works in Postgres closes this gap with [Postgres.Mark], which marks the id
// in the transaction of the effect: both are committed, or neither is.
//
// Of all schemes only [Standard] and [StandardEd25519] sign the id. With the others whoever can read the traffic
// can send a request again under another id; use TLS, and a scheme with a timestamp.
//
// walhook's replays and redeliveries keep the delivery's id. To have them handled again, take their ids out of
// the store first.
package receiver
