package ui

import "fmt"

// texts holds every text of the dashboard in English, by key. Each group of pages has a map of its own, in a file
// texts_<group>.go, which it adds with `var _ = register(textsOf…)`. Templates say {{text "key"}}, Go code text("key");
// what follows the key fills the text's verbs. A test looks for keys that are used and missing.
var texts = map[string]string{}

// register adds a group of texts. A key that is there already is a mistake of the program.
func register(group map[string]string) bool {
	for key, text := range group {
		if _, twice := texts[key]; twice {
			panic("ui: text " + key + " is there twice")
		}
		texts[key] = text
	}
	return true
}

// text returns a text, with its verbs filled.
func text(key string, args ...any) string {
	text, ok := texts[key]
	if !ok {
		return key // tests find these; a page with an odd word is better than none
	}
	if len(args) == 0 {
		return text
	}
	return fmt.Sprintf(text, args...)
}

var _ = register(textsOfCore)

var textsOfCore = map[string]string{
	"product":       "walhook",
	"layout.skip":   "Skip to content",
	"layout.nav":    "Main",
	"layout.theme":  "Switch between light and dark",
	"layout.logout": "Log out",
	"layout.docs":   "API",
	// Who has logged in with a token without a name.
	"layout.unnamed": "token",
	"layout.problem": "The relay has a problem",
	"layout.remedy":  "Remedy",

	"nav.overview":  "Overview",
	"nav.webhooks":  "Webhooks",
	"nav.dead":      "Dead letters",
	"nav.events":    "Events",
	"nav.slot":      "Slot and relay",
	"nav.catalogue": "Event types",

	"state.running": "running",
	"state.standby": "standby",
	"state.unknown": "unknown",

	"time.now":    "just now",
	"time.soon":   "in a moment",
	"time.ago":    "%s ago",
	"time.in":     "in %s",
	"value.none":  "–",
	"unit.second": "s",

	"login.title":    "Log in",
	"login.token":    "Token",
	"login.hint":     "Make one with: walhook token create --name NAME --scope read,manage",
	"login.button":   "Log in",
	"login.wrong":    "This token is not valid. It may be mistyped, expired or revoked.",
	"login.empty":    "Enter a token.",
	"login.too_many": "Too many failed attempts from this address. Try again in %d seconds.",
	"login.out":      "You are logged out.",

	"error.title":        "Something went wrong",
	"error.request":      "Request %s. The relay's log says more under this id.",
	"error.back":         "Back to the overview",
	"error.400":          "The request cannot be understood",
	"error.400.text":     "The form could not be read. Go back and try again.",
	"error.403":          "Not allowed",
	"error.403.scope":    "This takes a token with scope %s.",
	"error.403.tenant":   "This concerns the whole system. Your token is for one tenant.",
	"error.403.origin":   "The request came from another site and was refused.",
	"error.404":          "Nothing here",
	"error.404.text":     "There is no such page. It may have been deleted, or the address is mistyped.",
	"error.408":          "Too slow",
	"error.409":          "Not possible at present",
	"error.412":          "Somebody else was faster",
	"error.413":          "Too large",
	"error.413.text":     "A form may have at most 1 MB.",
	"error.415":          "Not a form",
	"error.415.text":     "Only forms are accepted here. Programs use the API.",
	"error.422":          "Not valid",
	"error.429":          "Too many requests",
	"error.500":          "Something went wrong",
	"error.500.text":     "The page could not be made.",
	"error.503":          "The database is away",
	"error.503.text":     "walhook cannot reach its database at present. Deliveries go on as soon as it is back; so does this page.",
	"error.503.retry":    "The page tries again by itself.",
	"error.503.pages":    "Too many pages with live updates are open.",
	"error.401.redirect": "Log in first.",
}
