// Package rabbittest runs RabbitMQ in Docker for Warren's own tests.
//
// [Shared] gives a test the one broker of its test process, started when it is
// first asked for; [Start] one of the test's own; [StartCluster] several that
// know each other. The image is that of RABBITMQ_IMAGE, "rabbitmq:4" by
// default. Where no broker can be had the test fails: a suite that needs a
// broker and quietly skips would prove nothing.
//
// A broker counts as started when an AMQP handshake has come to its end and
// `rabbitmqctl await_startup` has returned, since a port opens well before.
// It takes guest's password from anywhere, offers PLAIN, AMQPLAIN and
// EXTERNAL, and listens with TLS too, under certificates made for the run.
//
// Containers remove themselves when the test process is gone, however it ended:
// see leash.go. They carry the label [Label], so that strays can be found.
package rabbittest
