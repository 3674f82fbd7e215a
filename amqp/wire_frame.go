package amqp

import "encoding/binary"

const (
	frameHeaderSize = 7 // type, channel, payload size
	frameOverhead   = 8 // and the end octet
	frameEndOctet   = 0xCE
)

// frameHeader is what comes before a frame's payload.
type frameHeader struct {
	typ     uint8
	channel uint16
	size    uint32 // of the payload
}

// appendFrameHeader appends the header of a frame whose payload has size bytes.
func appendFrameHeader(dst []byte, typ uint8, ch uint16, size uint32) []byte {
	return append(dst, typ, byte(ch>>8), byte(ch),
		byte(size>>24), byte(size>>16), byte(size>>8), byte(size))
}

// beginFrame appends a frame header without a size, for endFrame to complete.
// The frame begins at what len(dst) was.
func beginFrame(dst []byte, typ uint8, ch uint16) []byte {
	return append(dst, typ, byte(ch>>8), byte(ch), 0, 0, 0, 0)
}

// endFrame patches the size of the frame that begins at start and ends it.
// Sizes over frame-max are the caller's to refuse: payloadSize tells them.
func endFrame(dst []byte, start int) []byte {
	binary.BigEndian.PutUint32(dst[start+3:], uint32(payloadSize(dst, start)))
	return append(dst, frameEndOctet)
}

// payloadSize is the size so far of the payload of the frame begun at start.
func payloadSize(dst []byte, start int) int { return len(dst) - start - frameHeaderSize }

// parseFrameHeader reads a frame header; p must hold 7 bytes at least.
func parseFrameHeader(p []byte) frameHeader {
	_ = p[frameHeaderSize-1]
	return frameHeader{
		typ:     p[0],
		channel: binary.BigEndian.Uint16(p[1:]),
		size:    binary.BigEndian.Uint32(p[3:]),
	}
}

// splitBody says how many body frames a body of n bytes makes, and how many
// bytes each but the last carries: frame-max counts the 8 bytes around them.
// frameMax 0 means no limit; an empty body has no frames.
func splitBody(n uint64, frameMax uint32) (frames uint64, each uint32) {
	each = 1<<32 - 1
	if frameMax > frameOverhead {
		each = frameMax - frameOverhead
	}
	return n/uint64(each) + min(1, n%uint64(each)), each
}
