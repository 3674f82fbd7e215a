//go:build unix

package amqp

import (
	"io"
	"net"
	"syscall"
	"unsafe"
)

// rawConn tries reads and writes on a socket without waiting, which net.Conn
// has no call for, and waits for input without holding a buffer.
type rawConn struct {
	rc syscall.RawConn

	wbuf []byte
	wn   int
	werr error
	wfn  func(uintptr) bool

	vec [][]byte
	iov []syscall.Iovec
	vfn func(uintptr) bool

	rbuf func() []byte
	idle func()
	rn   int
	rerr error
	rfn  func(uintptr) bool
}

// newRawConn returns nil where nc is not a TCP or unix socket as such.
func newRawConn(nc net.Conn) *rawConn {
	var rc syscall.RawConn
	var err error
	switch nc := nc.(type) {
	case *net.TCPConn:
		rc, err = nc.SyscallConn()
	case *net.UnixConn:
		rc, err = nc.SyscallConn()
	default:
		return nil
	}
	if err != nil {
		return nil
	}
	r := &rawConn{rc: rc}
	r.wfn, r.rfn, r.vfn = r.write, r.read, r.writev
	return r
}

// tryWrite writes what the socket takes now. n may be short without an error.
func (r *rawConn) tryWrite(p []byte) (n int, err error) {
	r.wbuf, r.wn, r.werr = p, 0, nil
	err = r.rc.Write(r.wfn)
	r.wbuf = nil
	if r.werr != nil {
		err = r.werr
	}
	return r.wn, err
}

func (r *rawConn) write(fd uintptr) bool {
	for r.wn < len(r.wbuf) {
		n, err := syscall.Write(int(fd), r.wbuf[r.wn:])
		if n > 0 {
			r.wn += n
		}
		switch err {
		case nil, syscall.EINTR:
			continue
		case syscall.EAGAIN:
			return true
		}
		r.werr = err
		return true
	}
	return true
}

// writeAll writes all of vec, and waits for the socket where it must, until
// the write deadline. n may be short with an error alone.
func (r *rawConn) writeAll(vec [][]byte) (n int, err error) {
	r.vec, r.wn, r.werr = vec, 0, nil
	err = r.rc.Write(r.vfn)
	clear(r.iov)
	r.vec = nil
	if r.werr != nil {
		err = r.werr
	}
	return r.wn, err
}

// maxIov is how many pieces go into a call; Linux takes 1024.
const maxIov = 256

func (r *rawConn) writev(fd uintptr) bool {
	for {
		iov, skip := r.iov[:0], r.wn
		for _, p := range r.vec {
			if k := min(skip, len(p)); k > 0 {
				p, skip = p[k:], skip-k
			}
			if len(p) > 0 && len(iov) < maxIov {
				v := syscall.Iovec{Base: &p[0]}
				v.SetLen(len(p))
				iov = append(iov, v)
			}
		}
		r.iov = iov
		if len(iov) == 0 {
			return true
		}
		n, _, errno := syscall.Syscall(syscall.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov)))
		switch errno {
		case 0:
			r.wn += int(n)
		case syscall.EINTR:
		case syscall.EAGAIN:
			return false
		default:
			r.werr = errno
			return true
		}
	}
}

// read waits until there is something to read, then reads into what buf
// returns. idle is called before it waits. Errors: io.EOF, net's own.
func (r *rawConn) readInto(buf func() []byte, idle func()) (int, error) {
	r.rbuf, r.idle, r.rn, r.rerr = buf, idle, 0, nil
	if err := r.rc.Read(r.rfn); err != nil {
		return r.rn, err
	}
	return r.rn, r.rerr
}

func (r *rawConn) read(fd uintptr) bool {
	p := r.rbuf()
	for {
		n, err := syscall.Read(int(fd), p)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			r.idle()
			return false
		case err != nil:
			r.rerr = err
		case n == 0:
			r.rerr = io.EOF
		default:
			r.rn = n
		}
		return true
	}
}
