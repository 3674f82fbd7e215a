// Package amqp is a client for AMQP 0-9-1 as RabbitMQ speaks it.
//
//	conn, err := amqp.Dial(ctx, "amqp://localhost", nil)
//	if err != nil { ... }
//	defer conn.Close()
//	ch, err := conn.Channel(ctx)
//	if err != nil { ... }
//	_, err = ch.QueueDeclare(ctx, amqp.QueueDeclare{Queue: "jobs", Durable: true})
//	if err != nil { ... }
//	err = ch.Publish(ctx, amqp.BasicPublish{RoutingKey: "jobs"}, amqp.Message{Body: []byte("hello")})
//	if err != nil { ... } // not confirmed, and the error says what became of it
//	jobs, err := ch.Subscribe(ctx, amqp.BasicConsume{Queue: "jobs"}, nil)
//	for d, err := range jobs.All() { ...; d.Ack() }
//
// [Conn] is one connection and [Channel] a channel of it: they end with the
// connection. [Client] is what a service holds: it stays up when connections
// don't. [Engine] is the protocol alone, for who brings an event loop. Package
// amqptest is a broker for tests, package rpc makes calls over queues.
//
// Names are the protocol's, class first. The struct of a method is the options
// of its call: [Channel.QueueDeclare] takes a [QueueDeclare] and gives a
// [QueueDeclareOk].
//
// # Contexts
//
// What waits takes a context, and waits no longer than it. Where a call's
// context ends before anything was sent, [SafeToRetry] says so; after that the
// error wraps [ErrUnknownOutcome], a late answer is nobody else's, and the
// channel goes on. What has no context only queues, and never waits.
//
// # Errors
//
// What either side says in closing is an [*Error], which unwraps to its
// [ReplyCode] and to [ErrClosed]: errors.Is(err, amqp.NotFound). What would cost
// the whole connection is refused before it is sent, with [ErrRefused].
//
// # Whose bytes are whose
//
//   - A message's body and tables are the caller's again when a publish of a
//     Channel or a Conn returns, with or without an error. A Client with
//     ClientConfig.Resend keeps a copy of what it may have to send again.
//   - A [Delivery] is a copy and its receiver's to keep, strings included. Where
//     ConsumeOptions.Borrow asked for it, it is lent until the handler returns,
//     the loop goes on, or Release is called.
//   - Tables that come out of this package are the receiver's; those that go in
//     are read during the call, and not written.
//   - An [Engine] copies what Feed gets; an [Event] is valid until the next Feed;
//     a body of 128 KiB or more that SendContent was given must stay as it is
//     until Wrote has passed it.
//   - dst of the append functions may be nil, and is theirs until they return.
//
// # How it is made
//
// The files of the package are layers, each of which knows those before it:
//
//	spec_gen.go, calls_gen.go   generated from the protocol's spec by cmd/amqpgen
//	wire*.go                    octets, strings, tables, frames
//	engine*.go                  the protocol's state machine: Engine
//	conn*.go, channel.go, publish.go, confirm.go, consume.go, intake.go, taker.go,
//	inline.go, delivery.go, ack.go, get.go, serve*.go, hook.go, wait.go
//	                            one connection's life
//	client*.go, topology*.go    what survives a connection
//	uri*.go, dial*.go, sasl.go, credentials.go, config.go, trace.go, errors.go
//	                            the edges
//
// Up to the engine there is no I/O, clock, lock or goroutine, and a test keeps it
// so. A connection has two goroutines, one that reads and one that writes what
// could not be written at once; nothing else has one of its own but Serve's
// workers and a Client's links.
//
// Locks, in the order in which they may be taken; what stands on one line is
// never held together:
//
//	ackState.mu                                         a channel's unsettled deliveries
//	Conn.mu                                             the engine's sending half, the outbox, channels, confirms
//	Client.mu, resender.mu
//	Consumer.mu, budget.mu, ownConfirm.mu, streamTrack.mu, serving.mu
//	                                                    leaves
//
// No code of a user's runs under any of them, and nothing waits under one: Conn.mu
// is given up during a write. docs/design.md is the longer map.
package amqp
