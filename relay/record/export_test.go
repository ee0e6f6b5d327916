package record

// FullXID is the expression for the 64-bit id of a row's transaction.
const FullXID = fullXID
