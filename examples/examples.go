// Package examples holds small programs, one to a directory, each with its story
// in its doc comment. Begin with hello. The tests of each run it on amqptest; the
// integration test here builds them and runs them on RabbitMQ.
package examples
