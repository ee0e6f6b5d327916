package ui_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/walhook/walhook/relay/ui"
)

// withSlot makes the lab's slot known.
func (l *lab) withSlot(t *testing.T) {
	t.Helper()
	l.exec(t, `INSERT INTO outbox.checkpoint (slot_name, lsn, confirmed_lsn, recorded_through, system_identifier, timeline)
		VALUES ($1, '1/ABCDEF', '1/ABCDEF', now(), 'x', 1)`, l.slot)
}

func TestTheSlotPageSaysHowThingsAre(t *testing.T) {
	t.Parallel()
	l := newLab(t, func(o *ui.Options) {
		o.State = func() ui.State {
			return ui.State{Name: "halted", Code: "slot_gap", What: "there is a gap <xss>", Remedy: "walhook init <xss>"}
		}
		o.Forecast = func(context.Context) (ui.Forecast, error) {
			return ui.Forecast{
				WALRate: ptr(1500.0), LostIn: ptr(12000.0), SlotOutlook: "approaching", DiskOutlook: "unknown_room", Blind: true,
				Holders: []ui.Holder{{Code: "transaction", Text: "a transaction of <xss>", Bytes: ptr(int64(5_000_000))}},
			}, nil
		}
	})
	require.Contains(t, l.page(t, "/slot"), "There is no slot with a checkpoint")
	l.withSlot(t)
	l.exec(t, "INSERT INTO outbox.alerts (alert, message) VALUES ('slot_lag', 'the slot is behind <xss>')")
	body := l.page(t, "/slot")
	harmless(t, body)
	for _, want := range []string{
		"halted", "slot_gap", "1/ABCDEF", l.slot, "nobody reads it", "slot_lag", "the slot is behind",
		"At the present rate the slot is lost in 3 h 20 min.", "1.5 kB a second", "5.0 MB", "grant pg_monitor", `hx-get="/slot/doctor"`,
	} {
		require.Contains(t, body, want)
	}
	stream := l.stream(t, "/slot/live")
	stream.until("1/ABCDEF")
	l.exec(t, "UPDATE outbox.checkpoint SET lsn = '2/1234'")
	stream.until("2/1234")
}

func TestEveryOutlookHasItsSentence(t *testing.T) {
	t.Parallel()
	var forecast ui.Forecast
	for _, outlook := range []string{"lost", "approaching", "steady", "unlimited", "slot_first", "unknown_rate", "unknown_room"} {
		for _, seconds := range []*float64{nil, ptr(0.0), ptr(90.0), ptr(1e12)} {
			forecast = ui.Forecast{SlotOutlook: outlook, DiskOutlook: outlook, LostIn: seconds, FullIn: seconds}
			slot, disk := ui.Outlooks(forecast)
			require.NotContains(t, slot, "forecast.", outlook)
			require.NotContains(t, disk, "forecast.", outlook)
			require.NotContains(t, slot+disk, "%", outlook)
		}
	}
}

func TestWithoutAForecastThereIsStillAPage(t *testing.T) {
	t.Parallel()
	var looks atomic.Int32
	l := newLab(t, func(o *ui.Options) {
		o.Forecast = func(context.Context) (ui.Forecast, error) {
			if looks.Add(1) == 1 {
				return ui.Forecast{}, errors.New("password=canary")
			}
			return ui.Forecast{SlotOutlook: "steady", DiskOutlook: "steady"}, nil
		}
	})
	l.withSlot(t)
	body := l.page(t, "/slot")
	require.Contains(t, body, "could not be looked up")
	require.Contains(t, body, l.slot)
	require.NotContains(t, body, "canary")
	for range 3 {
		require.Contains(t, l.part(t, "/slot/forecast"), "What is kept for the slot does not grow.")
	}
	require.EqualValues(t, 2, looks.Load(), "a forecast is good for all who look")
	require.Contains(t, l.page(t, "/slot/forecast"), "<html", "a browser without scripts gets the whole page")
}

func TestTheDoctorIsAskedOnceForAll(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	begun, release := make(chan struct{}), make(chan struct{})
	l := newLab(t, func(o *ui.Options) {
		o.Doctor = func(context.Context) []ui.Finding {
			if asked.Add(1) == 1 {
				close(begun)
			}
			<-release
			return []ui.Finding{
				{Code: "fine", Severity: "ok", What: "all is well"},
				{Code: "odd", Severity: "strange", What: "who knows"},
				{Code: "bad", Severity: "error", What: "broken <xss>", Explanation: "because of <xss>", Remedy: "ALTER SYSTEM <xss>"},
			}
		}
	})
	l.withSlot(t)
	require.NotContains(t, l.page(t, "/slot"), "all is well", "a page does not wait for the doctor")
	require.EqualValues(t, 0, asked.Load())

	var wait sync.WaitGroup
	bodies := make([]string, 5)
	for i := range bodies {
		wait.Go(func() { bodies[i] = l.part(t, "/slot/doctor") })
	}
	<-begun
	close(release)
	wait.Wait()
	for _, body := range bodies {
		harmless(t, body)
		require.Regexp(t, `(?s)errors</span> 1.*broken.*because of.*<pre.*ALTER SYSTEM.*in order</span> 1.*all is well.*others</span> 1.*who knows`, body)
	}
	require.Contains(t, l.page(t, "/slot/doctor"), "all is well", "a browser without scripts gets the whole page")
	require.EqualValues(t, 1, asked.Load())
}
