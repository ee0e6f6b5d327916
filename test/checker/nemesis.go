package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/walhook/walhook/internal/fault"
)

// action is one thing that the nemesis does.
type action struct {
	class string
	point fault.Kill // of a kill at a named point
	do    func(*episode, context.Context) error
}

func (a action) String() string {
	if a.point != "" {
		return string(a.point)
	}
	return a.class
}

// Classes of kills; every other class is the name of a fault.
const (
	killPoint  = "kill-point"
	killRandom = "kill-random"
)

// faults are all but kills. The last of them end an episode, because they may take the truth's slot as well.
var faults = []action{
	{class: "sigterm", do: (*episode).terminate},
	{class: "sigstop", do: (*episode).freeze},
	{class: "kill-takeover", do: (*episode).killOwner},
	{class: "postgres-immediate", do: stopPostgres("immediate")},
	{class: "postgres-fast", do: stopPostgres("fast")},
	{class: "link-postgres-cut", do: (*episode).cutPostgres},
	{class: "link-postgres-hold", do: (*episode).holdPostgres},
	{class: "link-receiver-cut", do: (*episode).cutReceivers},
	{class: "link-receiver-hold", do: (*episode).holdReceivers},
	{class: "receiver-down", do: (*episode).receiversDown},
	{class: "receiver-slow", do: behave("slow")},
	{class: "receiver-error", do: behave("error")},
	{class: "receiver-busy", do: behave("busy")},
	{class: "receiver-reset", do: behave("reset")},
	{class: "receiver-hang", do: behave("hang")},
	{class: "receiver-flap", do: behave("flap")},
	{class: "receiver-early", do: behave("early")},
	{class: "receiver-gone", do: (*episode).receiverGone},
	{class: "replay", do: (*episode).replaySome},
	{class: "secrets-rotated", do: (*episode).rotateSecrets},
	{class: "disk-full", do: (*episode).fillDisk},
	{class: "huge-transaction", do: (*episode).hugeTransaction},
	{class: "big-row", do: (*episode).bigRow},
	{class: slotDropped.class, do: lose(slotDropped)},
	{class: slotAdvanced.class, do: lose(slotAdvanced)},
	{class: slotRecreated.class, do: lose(slotRecreated)},
	{class: publicationDropped.class, do: lose(publicationDropped)},
	{class: publicationAltered.class, do: lose(publicationAltered)},
}

// invalidate ends an episode: it may take the truth's slot as well, which has read everything by then.
var invalidate = action{class: slotInvalidated.class, do: (*episode).invalidateSlot}

// calm are the faults after which nothing may arrive twice: no relay is killed, no receiver loses an answer.
var calm = []string{"sigterm", "postgres-immediate", "link-postgres-hold", "postgres-fast", "link-postgres-cut", "disk-full",
	"receiver-error", "receiver-busy", "big-row", "sigterm", "link-postgres-hold"}

// draw yields the actions of an episode. Every third one is calm, where a duplicate cannot hide behind a kill.
func draw(seed uint64, episode, n int) (actions []action, isCalm bool) {
	d := newDeck(seed)
	if episode%3 == 1 {
		rng := rand.New(rand.NewPCG(seed, uint64(1000+episode)))
		actions = fromNames(calm...)
		rng.Shuffle(len(actions), func(i, j int) { actions[i], actions[j] = actions[j], actions[i] })
		return actions, true
	}
	d.take((episode - (episode+1)/3) * n)
	return d.take(n), false
}

// setUpPoints are hit by init, before there is anything to deliver; all others by a relay at work.
func setUpPoints() []fault.Kill { return setUpOrder }

func workPoints() []fault.Kill { return slices.DeleteFunc(fault.Points(), duringSetUp) }

// kill has a relay kill itself at a point.
func kill(p fault.Kill) action {
	if strings.HasPrefix(string(p), "recover.") {
		return action{class: killPoint, point: p, do: killRecovery(p)}
	}
	return action{class: killPoint, point: p, do: killAt(p)}
}

// deck yields actions for ever: first everything once, then mostly kills. It depends on the seed only.
type deck struct {
	rng  *rand.Rand
	next []action
	laps int
}

func newDeck(seed uint64) *deck { return &deck{rng: rand.New(rand.NewPCG(seed, 2))} }

// take draws the next n.
func (d *deck) take(n int) []action {
	for len(d.next) < n {
		d.next = append(d.next, d.lap()...)
	}
	taken := slices.Clone(d.next[:n])
	d.next = d.next[n:]
	return taken
}

// lap is every kill point once, kills at random times, and faults: all of them in the first lap, a few in the
// others, because they take longer than a kill.
func (d *deck) lap() []action {
	var all []action
	for _, p := range workPoints() {
		all = append(all, kill(p))
	}
	for range 8 {
		all = append(all, action{class: killRandom, do: (*episode).killAnywhen})
	}
	for _, f := range faults {
		if d.laps == 0 || d.rng.IntN(6) == 0 {
			all = append(all, f)
		}
	}
	d.laps++
	d.rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// fromNames is a list of actions for the self-test, by class or kill point.
func fromNames(names ...string) []action {
	all := []action{{class: killRandom, do: (*episode).killAnywhen}}
	all = append(all, faults...)
	for _, p := range workPoints() {
		all = append(all, kill(p))
	}
	var chosen []action
	for _, name := range names {
		i := slices.IndexFunc(all, func(a action) bool { return a.String() == name })
		if i < 0 {
			panic(fmt.Sprintf("there is no action %q", name))
		}
		chosen = append(chosen, all[i])
	}
	return chosen
}
