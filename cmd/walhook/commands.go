package main

import "github.com/spf13/cobra"

// commands lists the subcommands in the order in which a user meets them.
func (a *app) commands() []*cobra.Command {
	return []*cobra.Command{
		a.initCommand(),
		a.runCommand(),
		a.doctorCommand(),
		a.statusCommand(),
		a.auditCommand(),
		a.subscriptionsCommand(),
		a.triggerCommand(),
		a.replayCommand(),
		a.redeliverCommand(),
		a.secretsCommand(),
		a.tokenCommand(),
		a.listenCommand(),
		a.demoCommand(),
		a.benchCommand(),
		a.versionCommand(),
		a.benchReceiverCommand(),
		a.benchClientCommand(),
		a.benchFloorCommand(),
	}
}
