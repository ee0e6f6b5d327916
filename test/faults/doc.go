// Package faults breaks, with the built program, what a relay stands on: its slot, its publications, the table of
// events, its Postgres and its twin. Each test says what an operator may expect then. It is run on every version of
// Postgres that walhook supports (.ci/versions).
//
// What is known to go wrong with consumers of logical replication, and the test that guards against it; those without a
// package are here.
//
//	acknowledging
//	 1 a keepalive acknowledged before delivery    relay.TestSlotWaitsForTheCheckpoint, stream.TestIdlePosition
//	 2 positions made by adding lengths            stream.TestStartSkipsWhatIsRecorded
//	 3 a flush beside a transaction's end          relay.TestSlotWaitsForTheRecordTransaction
//	 4 a start beyond what is confirmed            stream.TestStartRefuses, stream.TestResumeCorrectsWhereToBegin, TestStartingRelayRecovers
//	 5 a slot that goes back in a crash            acceptance.TestReplayedWALIsNotDeliveredAgain, TestAsynchronousCommitOfTheRole
//	 6 a zero position that acknowledges all       stream.TestConfirmedPositionIsToldAtOnce
//	 7 a last acknowledgement that is lost         stream.TestCloseTellsTheLastPosition
//	 8 events that share a position                stream.TestSequences, relay.TestStopInTheMiddleOfATransaction
//	idle and alive
//	 9 an idle outbox that pins WAL                TestIdleOutboxLetsGoOfWAL
//	10 a server that never asks                    stream.TestIdleStreamReportsRegularly
//	11 a consumer that blocks                      stream.TestTickKeepsTheServerWaiting, relay.TestDeadReceiversDoNotHoldBackTheLog
//	12 a deadline that tears a message             stream.TestMessagesInPieces, stream.TestBreakAtAnyByte
//	13 a link that is half open                    stream.TestDeadLinkIsNoticed
//	14 a slot that is in use                       TestKilledOwnerIsReplaced, TestFrozenOwnerIsReplaced, relay.TestConnectionsBreak
//	15 a shutdown that waits for the client        TestPostgresStops, stream.TestShutdownIsUrgent
//	slots
//	16 dropped and invalidated ones                TestSlotThatKeepsTooMuch, TestSlotThatIsIdleForTooLong, TestRunningRelayRecovers
//	17 one that is made anew without a word        TestRunningRelayHalts, TestTwoRelaysRecoverOnce
//	18 a long transaction that holds it            ops, where status and doctor name it
//	19 failover                                    TestFailoverWithFailoverSlot, TestFailoverWithoutFailoverSlot, stream.TestNotices
//	20 a publication that is missing               TestRunningRelayRecovers, TestStartingRelayRecovers, stream.TestNotices
//	21 membership that is historic                 TestRunningRelayRecovers ("table removed and added again")
//	22 partitions, TOAST, updates                  stream.TestOnlyInsertsAreEvents, stream.TestLargeFiltersSurviveAnUpdate
//	23 DDL                                         relay.TestTablesChangeUnderTheStream, TestRenamedTable
//	24 prepared and partly aborted transactions    TestPreparedTransactionOutlivesCrashes, every publish here
//	25 buffers that are used again                 stream.TestItemsShareNoMemoryWithMessages, stream.TestTruncatedMessages
//	26 a receiver that is faster than SQL          nothing to guard: what is sent comes from the stream alone
//	27 poolers                                     ops, where doctor names them
//	28 managed Postgres                            ops, where doctor names them
//	29 scans by id that miss late commits          every recovery here: a transaction is open while the harm is done
//	30 the price of decoding                       walhook bench
//
// And of Postgres and its surroundings: stops (TestPostgresStops), failover, slots and publications as above, tables
// dropped, replaced and renamed (harms, TestRenamedTable), prepared transactions, sizes (relay.TestBadEventsAreRefused), two relays,
// timeouts and asynchronous commits set for the role (TestTimeoutsOfTheRole, TestAsynchronousCommitOfTheRole), no place for
// replication (TestNoPlaceForReplication), broken sessions (relay.TestConnectionsBreak), copies
// (TestCopyInAnotherClusterIsRefused) and rotated passwords (TestRotatedPassword).
package faults
