package workload

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
)

// event is a row of outbox.events, or what outbox.emit is called with.
type event struct {
	typ     string
	tenant  string
	key     *string
	payload payload
}

// payload has the fields that filters look at, and some that only have to arrive as they are.
type payload struct {
	N           int64           `json:"n"`
	Department  string          `json:"department"`
	Amount      json.RawMessage `json:"amount"` // not float64, which would lose digits
	PatientType string          `json:"patient_type"`
	Patient     patient         `json:"patient"`
	VIP         bool            `json:"vip"`
	Note        string          `json:"note"`
	Referral    json.RawMessage `json:"referral,omitempty"` // a string, null, or not there
	Precise     json.RawMessage `json:"precise,omitempty"`
}

type patient struct {
	Age  int    `json:"age"`
	Name string `json:"name"`
}

var (
	eventTypes = []string{
		"patient.created", "patient.updated", "patient.merged", "appointment.booked", "appointment.moved",
		"appointment.cancelled", "invoice.issued", "invoice.paid", "invoice.voided", "lab.order.placed",
		"lab.result.ready", "system.ping",
	}
	otherTenants = []string{"acme", "globex"}
	departments  = []string{"cardiology", "cardiac surgery", "oncology", "radiology", "surgery", "Kinderärzte"}
	patientTypes = []string{"new", "returning", "referred"}
	notes        = []string{
		"", "plain", `says "no" and 'yes'`, "two\nlines\r\nand\ta tab", `C:\dir\n is no line break, \u0041 no A`,
		"žluťoučký kůň, 漢字, 👩‍⚕️", "<b>&amp;</b>\u2028\u007f", `{"n": -1}`, "$1 %s {} \\. \\N",
	}
	// Some are no float64, or none that is exact.
	oddNumbers = []string{
		"1e400", "-1e400", "12345678901234567890.000", "9007199254740993", "1000.0000000000000000001", "1e-300", "-0.0", "0.10",
	}
)

func newEvent(random *rand.Rand) event {
	e := event{typ: pick(random, eventTypes...), key: newKey(random)}
	if chance(random, 20) {
		e.tenant = pick(random, otherTenants...)
	}
	e.payload = payload{
		Department:  pick(random, departments...),
		Amount:      newAmount(random),
		PatientType: pick(random, patientTypes...),
		Patient:     patient{Age: random.IntN(100), Name: fmt.Sprintf("P%03d", random.IntN(1000))},
		VIP:         chance(random, 15),
		Note:        pick(random, notes...),
	}
	switch random.IntN(4) {
	case 0:
		e.payload.Referral = json.RawMessage("null")
	case 1:
		e.payload.Referral = json.RawMessage(pick(random, `"Dr. Who"`, `"Dr. No"`))
	}
	if chance(random, 20) {
		e.payload.Precise = json.RawMessage(pick(random, oddNumbers...))
	}
	return e
}

// newKey draws no key, one of three that many events share, or one of many.
func newKey(random *rand.Rand) *string {
	var key string
	switch roll := random.IntN(100); {
	case roll < 25:
		return nil
	case roll < 55:
		key = fmt.Sprintf("hot-%d", random.IntN(3))
	default:
		key = fmt.Sprintf("patient-%d", random.IntN(200))
	}
	return &key
}

func newAmount(random *rand.Rand) json.RawMessage {
	if chance(random, 5) {
		return json.RawMessage(pick(random, oddNumbers...))
	}
	return json.RawMessage(fmt.Sprintf("%d.%02d", random.IntN(2000), random.IntN(100)))
}

// json is the payload's text.
func (e *event) json() (string, error) {
	text, err := json.Marshal(&e.payload)
	if err != nil {
		return "", fmt.Errorf("payload of event %d: %w", e.payload.N, err)
	}
	return string(text), nil
}
