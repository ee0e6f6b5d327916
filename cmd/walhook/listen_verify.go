package main

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/walhook/walhook/outbox/receiver"
)

// schemeAuto judges each request by the scheme whose headers it has.
const schemeAuto = "auto"

// verdict is what is known about a request's signature.
type verdict string

// The verdicts.
const (
	signatureValid     verdict = "valid"
	signatureInvalid   verdict = "invalid"
	signatureExpired   verdict = "expired"   // it is right, but its timestamp is too far from now
	signatureMissing   verdict = "missing"   // there is a secret, but the request is not signed
	signatureUnchecked verdict = "unchecked" // the request is signed, but no secret was given
	signatureNone      verdict = "unsigned"
)

// judge verifies requests by the schemes for which its secrets are of use.
type judge struct {
	scheme    string // a receiver.Scheme, or schemeAuto
	secret    bool   // whether there is one
	verifiers map[receiver.Scheme]*receiver.Verifier
}

// newJudge holds the secrets to the scheme that is named. With auto they may be for different ones, so each
// scheme has those that it can use. An empty secret is none, as an empty variable is.
func newJudge(scheme string, secrets []string) (*judge, error) {
	secrets = slices.DeleteFunc(slices.Clone(secrets), func(s string) bool { return s == "" })
	j := &judge{scheme: scheme, secret: len(secrets) > 0, verifiers: map[receiver.Scheme]*receiver.Verifier{}}
	all := receiver.Schemes()
	switch {
	case scheme != schemeAuto && !slices.Contains(all, receiver.Scheme(scheme)):
		return nil, fmt.Errorf("%w: --scheme %s is not known: use %s or one of %v", errUsage, quote(scheme), schemeAuto, all)
	case scheme == schemeAuto:
		for _, s := range all {
			j.verifiers[s] = usable(s, secrets)
		}
	case j.secret:
		v, err := receiver.NewVerifier(receiver.Options{Scheme: receiver.Scheme(scheme), Secrets: secrets})
		if err != nil {
			return nil, fmt.Errorf("%w: --secret: %w", errUsage, err)
		}
		j.verifiers[receiver.Scheme(scheme)] = v
	}
	return j, nil
}

// usable makes a verifier of the secrets that a scheme can use; nil when it can use none.
func usable(s receiver.Scheme, secrets []string) *receiver.Verifier {
	var fit []string
	for _, secret := range secrets {
		if _, err := receiver.NewVerifier(receiver.Options{Scheme: s, Secrets: []string{secret}}); err == nil {
			fit = append(fit, secret)
		}
	}
	v, _ := receiver.NewVerifier(receiver.Options{Scheme: s, Secrets: fit}) // each has been tried
	return v
}

// judgement is a verdict with what it rests on.
type judgement struct {
	scheme  receiver.Scheme // whose headers the request has
	verdict verdict
	err     error // why it is not valid
}

// of judges a request.
func (j *judge) of(header http.Header, body []byte) judgement {
	found := receiver.SchemeOf(header)
	by := found
	if j.scheme != schemeAuto {
		by = receiver.Scheme(j.scheme)
	}
	switch {
	case !j.secret && found == receiver.None:
		return judgement{verdict: signatureNone}
	case !j.secret:
		return judgement{scheme: found, verdict: signatureUnchecked}
	case by == receiver.None:
		return judgement{verdict: signatureMissing}
	case j.verifiers[by] == nil:
		return judgement{by, signatureInvalid, fmt.Errorf("no --secret is one of the scheme %s", by)}
	}
	switch err := j.verifiers[by].Verify(header, body); {
	case err == nil:
		return judgement{by, signatureValid, nil}
	case errors.Is(err, receiver.ErrMissing):
		return judgement{by, signatureMissing, err}
	case errors.Is(err, receiver.ErrExpired):
		return judgement{by, signatureExpired, err}
	default:
		return judgement{by, signatureInvalid, err}
	}
}

// explain words the verdict for people. "valid" alone is walhook's own scheme.
func (j judgement) explain() string {
	switch j.verdict {
	case signatureInvalid, signatureExpired:
		return fmt.Sprintf("%s: %v", strings.ToUpper(string(j.verdict)), j.err)
	case signatureMissing:
		if j.err != nil {
			return fmt.Sprintf("MISSING: %v", j.err)
		}
		return "MISSING: the subscription has no secret"
	case signatureUnchecked:
		return "not checked: give the subscription's secret with --secret"
	case signatureNone:
		return "none: the subscription has no secret"
	}
	if j.scheme != receiver.SHA256 {
		return fmt.Sprintf("%s (%s)", j.verdict, j.scheme)
	}
	return string(j.verdict)
}
