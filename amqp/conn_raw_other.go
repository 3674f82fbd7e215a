//go:build !unix

package amqp

import "net"

// rawConn is for systems with unix sockets' calls; elsewhere there is none.
type rawConn struct{}

func newRawConn(net.Conn) *rawConn                           { return nil }
func (*rawConn) tryWrite([]byte) (int, error)                { return 0, nil }
func (*rawConn) writeAll([][]byte) (int, error)              { return 0, nil }
func (*rawConn) readInto(func() []byte, func()) (int, error) { return 0, nil }
