package delivery_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/delivery"
)

// ended is when the attempts of these tests end.
var ended = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// failed is an ordinary failure.
func failed() delivery.Outcome { return delivery.Outcome{Reason: delivery.ReasonStatus, Status: 500} }

// The schedule of the contract: the default subscription waits 60, 120 and 240 seconds and then gives up.
func TestRetriesDoubleFromTheRetryDelay(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		name    string
		delay   time.Duration
		retries int
		want    []time.Duration // before each retry
	}{
		{"the defaults", time.Minute, 3, []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute}},
		{"no retries", time.Minute, 0, nil},
		{"at once", 0, 2, []time.Duration{0, 0}},
		{"bounded by a day", 10 * time.Hour, 4, []time.Duration{10 * time.Hour, 20 * time.Hour, day, day}},
		{"a day already", day, 10, []time.Duration{day, day, day, day, day, day, day, day, day, day}},
	} {
		t.Run(c.name, func(t *testing.T) {
			settings := &delivery.Settings{MaxRetries: c.retries, RetryDelay: c.delay}
			var got []time.Duration
			d := delivery.Delivery{}
			for {
				o := failed()
				next := delivery.After(&d, settings, &o, ended, 0)
				if next.State == delivery.Dead {
					break
				}
				require.Equal(t, delivery.Waiting, next.State)
				got = append(got, next.At.Sub(ended))
				d.Attempts++
				d.Round++
			}
			require.Equal(t, c.want, got)
		})
	}
}

// Attempts count for ever, retries from the last outbox.redeliver: a redelivered delivery has them all again.
func TestRetriesAreCountedInTheRound(t *testing.T) {
	settings := &delivery.Settings{MaxRetries: 3, RetryDelay: time.Minute}
	o := failed()
	next := delivery.After(&delivery.Delivery{Attempts: 4, Round: 0}, settings, &o, ended, 0)
	require.Equal(t, delivery.Next{State: delivery.Waiting, At: ended.Add(time.Minute)}, next)
	next = delivery.After(&delivery.Delivery{Attempts: 7, Round: 3}, settings, &o, ended, 0)
	require.Equal(t, delivery.Dead, next.State)
}

func TestJitterOnlyDelaysByUpToATenth(t *testing.T) {
	settings := &delivery.Settings{MaxRetries: 3, RetryDelay: time.Minute}
	for jitter, want := range map[float64]time.Duration{0: 120 * time.Second, 0.5: 126 * time.Second, 1: 132 * time.Second} {
		o := failed()
		next := delivery.After(&delivery.Delivery{Round: 1}, settings, &o, ended, jitter)
		require.Equal(t, want, next.At.Sub(ended), "jitter %g", jitter)
	}
}

// What the receiver asks for may lengthen a wait, never shorten it, and never revives what is exhausted.
func TestRetryAfterLengthensTheWait(t *testing.T) {
	settings := &delivery.Settings{MaxRetries: 3, RetryDelay: time.Minute}
	for _, c := range []struct {
		asked time.Duration
		round int
		want  delivery.Next
	}{
		{2 * time.Second, 0, delivery.Next{State: delivery.Waiting, At: ended.Add(time.Minute)}},
		{90 * time.Second, 0, delivery.Next{State: delivery.Waiting, At: ended.Add(90 * time.Second)}},
		{90 * time.Second, 1, delivery.Next{State: delivery.Waiting, At: ended.Add(120 * time.Second)}},
		{24 * time.Hour, 2, delivery.Next{State: delivery.Waiting, At: ended.Add(24 * time.Hour)}},
		{90 * time.Second, 3, delivery.Next{State: delivery.Dead}},
	} {
		o := delivery.Outcome{Reason: delivery.ReasonStatus, Status: 429, RetryAfter: c.asked}
		got := delivery.After(&delivery.Delivery{Round: c.round}, settings, &o, ended, 0)
		require.Equal(t, c.want, got, "asked for %s in round %d", c.asked, c.round)
	}
}

// Every reason but success and an attempt that the relay broke off itself uses a retry up.
func TestWhatFollowsEachReason(t *testing.T) {
	exhausted := &delivery.Settings{MaxRetries: 0, RetryDelay: time.Minute}
	for reason, want := range map[delivery.Reason]delivery.Next{
		delivery.ReasonNone:     {State: delivery.Delivered},
		delivery.ReasonStopped:  {State: delivery.Waiting, At: ended},
		delivery.ReasonStatus:   {State: delivery.Dead},
		delivery.ReasonRedirect: {State: delivery.Dead},
		delivery.ReasonTimeout:  {State: delivery.Dead},
		delivery.ReasonConnect:  {State: delivery.Dead},
		delivery.ReasonTLS:      {State: delivery.Dead},
		delivery.ReasonReset:    {State: delivery.Dead},
		delivery.ReasonProtocol: {State: delivery.Dead},
		delivery.ReasonSettings: {State: delivery.Dead},
	} {
		o := delivery.Outcome{Reason: reason}
		require.Equal(t, want, delivery.After(&delivery.Delivery{}, exhausted, &o, ended, 0.9), "reason %q", reason)
		require.Equal(t, reason == delivery.ReasonNone, o.Succeeded(), "reason %q", reason)
		require.Equal(t, reason != delivery.ReasonStopped, o.Counts(), "reason %q", reason)
	}
}

func TestOnlyActiveAndValidSubscriptionsAreUsable(t *testing.T) {
	require.True(t, (&delivery.Settings{Active: true}).Usable())
	require.False(t, (&delivery.Settings{}).Usable())
	require.False(t, (&delivery.Settings{Active: true, Invalid: "the filter does not compile"}).Usable())
}

func TestSecretIsNeverPrinted(t *testing.T) {
	const key = "whsec_hunter2"
	s := delivery.Settings{Secret: key, PreviousSecret: key}
	text, err := s.Secret.MarshalText()
	require.NoError(t, err)
	for _, shown := range []string{fmt.Sprint(s), fmt.Sprintf("%+v %#v %q %v", s, s, s.Secret, &s), string(text)} {
		require.NotContains(t, shown, key)
		require.Contains(t, shown, "[redacted]")
	}
	require.Equal(t, key, s.Secret.Reveal())
	require.Empty(t, delivery.Secret("").String(), "no secret is not a redacted one")
}
