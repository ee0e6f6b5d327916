package ops

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rs/zerolog"
)

// Thresholds say from when on something is an alert. 0 turns one off.
type Thresholds struct {
	NoActivity          time.Duration // without an attempt
	SuccessRate         int           // percent of the last hour's attempts, at least ten
	ConsecutiveFailures int           // attempts
	Timeouts            int           // attempts of the last hour
	Lag                 time.Duration // age of the oldest committed event that is not recorded
	SlotLostWithin      time.Duration // until the slot is lost or the disk full, by the forecast
}

// Alert is something that is wrong (Raised) or was.
type Alert struct {
	Alert          string     `db:"alert"` // one of AlertKinds
	State          string     `db:"state"` // AlertRaised or AlertResolved
	SubscriptionID *string    `db:"subscription_id"`
	Subscription   *string    `db:"subscription"` // its name; nil for the slot's, and when it is deleted
	Tenant         string     `db:"tenant"`
	Message        string     `db:"message"` // never holds a URL or a secret
	Value          *float64   `db:"value"`
	Threshold      *float64   `db:"threshold"`
	RaisedAt       time.Time  `db:"raised_at"`
	ResolvedAt     *time.Time `db:"resolved_at"`
}

// The states of an alert.
const (
	AlertRaised   = "raised"
	AlertResolved = "resolved"
)

// AlertKinds are all that an alert can be. Their events are of type walhook.alert. and the kind.
func AlertKinds() []string {
	return []string{"no_activity", "success_rate", "consecutive_failures", "timeouts", "subscription_invalid", "subscription_gone",
		slotLag, slotInactive, slotAtRisk, slotRecovered, relayHalted}
}

// Alerts looks for what is wrong: with subscriptions, and with the slot.
type Alerts struct {
	Slot       string
	Thresholds Thresholds
	// State says what this relay is doing and, when it is halted, the code of its problem.
	State func() (state, code string)
	// Forecast says where WAL and slot are heading, as ReadForecast does.
	Forecast func(context.Context, *pgx.Conn) (Forecast, error)

	unread time.Time // since when no relay has read the slot, as far as we have looked; zero while one does
}

// Check looks once, and returns what began and what ended. Rows of outbox.alerts and events of types walhook.alert.*
// are written in one transaction. Any number of relays may do so: who comes while another one looks does nothing.
// A forecast that cannot be made is an error beside what the rest of the look found.
func (a *Alerts) Check(ctx context.Context, conn *pgx.Conn) ([]Alert, error) {
	forecast, forecastErr := a.Forecast(ctx, conn) // it may take a second, so before the transaction
	if forecastErr != nil {
		forecastErr = fmt.Errorf("forecast for alerts: %w", forecastErr)
	}
	var changed []Alert
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		var ours bool
		if err := tx.QueryRow(ctx, "SELECT pg_try_advisory_xact_lock(hashtext('outbox.alerts'))").Scan(&ours); err != nil || !ours {
			return err
		}
		lag, err := ReadLag(ctx, tx, a.Slot)
		if err != nil {
			return err
		}
		changed, err = a.write(ctx, tx, a.look(lag, forecast, time.Now()).judge(a.Thresholds))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("check alerts: %w", err)
	}
	return changed, forecastErr
}

// look puts together what is known of the slot.
func (a *Alerts) look(lag Lag, forecast Forecast, now time.Time) *slotLook {
	if lag.Active {
		a.unread = time.Time{}
	} else if a.unread.IsZero() {
		a.unread = now
	}
	l := &slotLook{slot: a.Slot, lag: lag, forecast: forecast}
	if !lag.Active {
		l.unread = now.Sub(a.unread)
	}
	l.state, l.code = a.State()
	return l
}

func (a *Alerts) write(ctx context.Context, tx pgx.Tx, findings []slotFinding) ([]Alert, error) {
	text, err := json.Marshal(findings)
	if err != nil {
		return nil, err
	}
	t := a.Thresholds
	rows, err := tx.Query(ctx, `SELECT alert, state, subscription_id::text, subscription, tenant, message, value, threshold, raised_at, resolved_at
		FROM outbox.check_alerts($1, $2, $3, $4, $5, $6)`, a.Slot, t.NoActivity, t.SuccessRate, t.ConsecutiveFailures, t.Timeouts, string(text))
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByName[Alert])
}

// AlertRegularly runs Check every interval until ctx ends, not at once: a relay that has just started is behind, and has
// not had time to read its slot. What began and what ended is logged by the relay that wrote it.
func AlertRegularly(ctx context.Context, connect func(context.Context) (*pgx.Conn, error), a *Alerts, every time.Duration, log zerolog.Logger) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	said := ""
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		err := alertOnce(ctx, connect, a, log)
		switch {
		case err == nil:
			said = ""
		case ctx.Err() == nil && err.Error() != said:
			said = err.Error()
			log.Warn().Err(err).Msg("look for alerts, trying again later")
		}
	}
}

func alertOnce(ctx context.Context, connect func(context.Context) (*pgx.Conn, error), a *Alerts, log zerolog.Logger) error {
	const within = time.Minute
	ctx, cancel := context.WithTimeoutCause(ctx, within, errors.New("look for alerts: not done after a minute"))
	defer cancel()
	conn, err := connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	changed, err := a.Check(ctx, conn)
	for i := range changed {
		changed[i].log(log)
	}
	return err
}

// log writes one line: a warning for what began.
func (a *Alert) log(log zerolog.Logger) {
	e, what := log.Warn(), "alert raised"
	if a.State == AlertResolved {
		e, what = log.Info(), "alert resolved"
	}
	e = e.Str("alert", a.Alert)
	if a.SubscriptionID != nil {
		e = e.Str("subscription", *a.SubscriptionID)
	}
	if a.Subscription != nil {
		e = e.Str("name", *a.Subscription)
	}
	if a.Value != nil {
		e = e.Float64("value", *a.Value)
	}
	if a.Threshold != nil {
		e = e.Float64("threshold", *a.Threshold)
	}
	e.Str("reason", a.Message).Msg(what)
}
