// Package amqptest is an AMQP 0-9-1 broker for tests, in the test's own process:
// it is to AMQP what net/http/httptest is to HTTP. Programs talk to it as they
// talk to RabbitMQ, over TCP, TLS, a unix socket or in memory, with this
// module's client or any other.
//
//	srv := amqptest.NewServer(t) // closes with the test
//	conn, err := amqp.Dial(ctx, srv.URI(), nil)
//
// # What it is
//
// It behaves as RabbitMQ 4.3: exchanges, classic and quorum queues, streams,
// confirms, transactions, dead-lettering, time-outs, limits, priorities,
// permissions, and the errors with their codes and texts. How 4.3 behaves was
// found out on 4.3, and docs/amqptest.md lists what differs. Nothing is kept on
// disk, there is one node, and policies, plugins and the management API are
// not there.
//
// # In memory, and in fake time
//
// With Server.Dial in amqp.Config.Dial a connection is made in memory: no port
// is opened. All that takes time here goes by package time, so a test in a
// testing/synctest bubble waits hours for a TTL in no time. Such a test makes its
// server inside the bubble, and closes client and server before it ends.
//
// # Misbehaving
//
// A Server can be told to do what goes wrong in production: Block raises an
// alarm, Stall plays dead, KillConnection and CutAfter lose connections, Restart
// loses all of them, NackNext, DropConfirms, DelayConfirms and ReorderConfirms
// are hard on publishers, CancelConsumer and DeleteQueue on consumers,
// RefuseQueueDeclare and RefuseConnections on whoever starts, SplitWrites and
// Slow on readers. What is random about that follows Config.Seed. Heal ends it.
//
// # Asking
//
// Queues, Bindings, Consumers, Connections, Messages and Published tell what the
// server has; the Wait methods wait until it has it, and fail the test with a
// list of what is there instead.
package amqptest
