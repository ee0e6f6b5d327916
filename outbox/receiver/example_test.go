package receiver_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/walhook/walhook/outbox/receiver"
)

// A complete receiver: verified, each handler once.
func Example() {
	verifier, err := receiver.NewVerifier(receiver.Options{Scheme: receiver.SHA256, Secrets: []string{"It's a Secret to Everybody"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	manager := receiver.NewManager(receiver.NewMemory(100_000, 48*time.Hour))
	manager.On("patient.created", "welcome", func(_ context.Context, e receiver.Event) error {
		var patient struct{ Name string }
		if err := e.Decode(&patient); err != nil {
			return err
		}
		fmt.Println("welcome,", patient.Name)
		return nil
	})
	endpoint := receiver.Endpoint{Verifier: verifier}
	mux := http.NewServeMux()
	mux.Handle("POST /webhooks", endpoint.Middleware(manager))

	// What the relay sends, twice:
	for range 2 {
		r := httptest.NewRequest(http.MethodPost, "/webhooks", strings.NewReader(`{"name":"Ada"}`))
		r.Header.Set("X-Webhook-ID", "0192f0c1-2345-8678-9abc-def012345678")
		r.Header.Set("X-Webhook-Event", "patient.created")
		r.Header.Set("X-Webhook-Signature", "sha256=47e65d17ece431de011317f352c324e4f1a83c3742efc5c486620aacf3d5e884")
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		fmt.Println(w.Code)
	}
	// Output:
	// welcome, Ada
	// 200
	// 200
}

// Requests of any scheme can be verified without the rest of the package.
func ExampleVerifier_Verify() {
	verifier, err := receiver.NewVerifier(receiver.Options{
		Scheme:  receiver.GitHub,
		Secrets: []string{"It's a Secret to Everybody"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	header := http.Header{}
	header.Set("X-Hub-Signature-256", "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17")
	fmt.Println(verifier.Verify(header, []byte("Hello, World!")))
	fmt.Println(errors.Is(verifier.Verify(header, []byte("Hello, world!")), receiver.ErrInvalid))
	// Output:
	// <nil>
	// true
}

// The mark commits together with the effect: exactly once, whatever crashes.
func ExamplePostgres_Mark() {
	book := func(pool *pgxpool.Pool) *receiver.Manager {
		store := receiver.NewPostgres(pool, receiver.PostgresOptions{})
		manager := receiver.NewManager(store)
		manager.On("payment.received", "ledger", func(ctx context.Context, e receiver.Event) error {
			err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
				if err := store.Mark(ctx, tx, receiver.ClaimID(e, "ledger")); err != nil {
					return err
				}
				_, err := tx.Exec(ctx, "INSERT INTO ledger (entry) VALUES ($1)", e.Data)
				return err
			})
			if errors.Is(err, receiver.ErrHandled) {
				return nil // somebody else's transaction has done it
			}
			return err
		})
		return manager
	}
	_ = book
}

// Slow work is done after the answer, in bounds, at the price that Background's documentation names.
func ExampleBackground() {
	manager := receiver.NewManager(nil)
	background := receiver.NewBackground(manager.Handle, receiver.BackgroundOptions{
		Failed: func(events []receiver.Event, err error) {
			fmt.Fprintln(os.Stderr, len(events), "events were not handled:", err)
		},
	})
	w := httptest.NewRecorder()
	background.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/webhooks", strings.NewReader(`{"n":1}`)))
	fmt.Println(w.Code, background.Stop(context.Background()))
	// Output: 202 <nil>
}
