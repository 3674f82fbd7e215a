// Package chaos has a client work on a RabbitMQ cluster of three while its nodes
// are killed, cut off, stopped and told to close connections, and its traffic is
// dropped, reset, sliced and slowed down. `make chaos` runs it; CHAOS=short is a
// part of it. It is a module of its own for the sake of its dependencies.
package chaos
