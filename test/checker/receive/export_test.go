package receive

// Serve is New on a file that is open already.
var Serve = serve
