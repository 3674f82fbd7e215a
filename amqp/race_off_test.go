//go:build !race

package amqp

// raceEnabled says that the tests run under the race detector.
const raceEnabled = false
