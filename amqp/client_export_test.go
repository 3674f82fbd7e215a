package amqp

// RaceEnabled says that the tests run under the race detector, to those outside
// the package.
const RaceEnabled = raceEnabled
