package relay

import "context"

// TakeHaltLock asks once for the lock of the relay that serves the queue of a slot which cannot go on.
func TakeHaltLock(ctx context.Context, o Options) (release func(), mine bool, err error) {
	var lock haltLock
	mine, err = lock.take(ctx, &o)
	return lock.release, mine, err
}
