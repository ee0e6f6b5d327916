package relay

// Connect opens a session as the relay does.
var Connect = connect
