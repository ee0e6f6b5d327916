package outbox

// What the external tests look at.
var (
	JSONBSize   = jsonbSize
	InsertEvent = insertEvent
)

// ChunkBytes bounds one statement of a batch.
const (
	ChunkBytes  = chunkBytes
	ChunkEvents = chunkEvents
)
