package main

import (
	"crypto/rand"
	"encoding/base64"
	"net"

	"github.com/walhook/walhook/config"
)

// newDemoToken makes a token like those of walhook token create. It is the configuration's, so that it ends with the demo
// and is stored nowhere.
func newDemoToken() config.Secret {
	var random [32]byte
	_, _ = rand.Read(random[:]) // never fails
	return config.Secret("whk_" + base64.RawURLEncoding.EncodeToString(random[:]))
}

// demoLinks lead to the dashboard and the API.
type demoLinks struct{ dashboard, login, api string }

// newDemoLinks makes the links to a relay that listens there. The token is in the fragment, which no browser sends: the
// login page takes it out.
func newDemoLinks(address net.Addr, prefix string, token config.Secret) demoLinks {
	base := "http://" + reachable(address.String()) + prefix
	return demoLinks{
		dashboard: base + "/",
		login:     base + "/login#token=" + token.Reveal(),
		api:       `curl -H "Authorization: Bearer ` + token.Reveal() + `" ` + base + "/api/v1/webhooks/",
	}
}

// reachable is where somebody on this machine reaches what listens on an address, perhaps on all.
func reachable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil || !net.ParseIP(host).IsUnspecified() {
		return address
	}
	return net.JoinHostPort("localhost", port)
}

func (d *demo) links() demoLinks {
	return newDemoLinks(d.service.front.address(), d.cfg.PathPrefix, d.cfg.API.Token)
}

// lines are what people read.
func (l demoLinks) lines() []string {
	return []string{"dashboard: " + l.dashboard, "log in:    " + l.login, "API:       " + l.api}
}
