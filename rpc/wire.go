package rpc

import (
	"context"
	"encoding/hex"
	"math"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/warrenmq/warren/amqp"
)

// The headers of requests and replies. docs/rpc-wire.md is about them.
const (
	// HeaderTimeout is how many milliseconds a request had left when it was
	// sent (an integer). A time left, not a time of day: clocks need not agree.
	HeaderTimeout = "rpc-timeout-ms"

	// HeaderErrorCode and HeaderErrorText mark a reply that is an error; its
	// body holds the details.
	HeaderErrorCode = "rpc-error-code"
	HeaderErrorText = "rpc-error-text"

	// HeaderStream in a request says that the caller takes several replies, in
	// order; HeaderMore in a reply that it is not the last one, and HeaderSeq
	// counts them from 0.
	HeaderStream = "rpc-stream"
	HeaderMore   = "rpc-more"
	HeaderSeq    = "rpc-seq"
)

// directReplyTo is the name under which RabbitMQ sends replies straight to the
// channel that asked.
const directReplyTo = "amq.rabbitmq.reply-to"

// cancelExchange is where callers say that they no longer wait. It exists on
// every broker. The routing key is that of cancelKey, the correlation id the
// request's.
const cancelExchange = "amq.direct"

// cancelKey is the routing key of the cancels of requests that went to an
// exchange with a routing key.
func cancelKey(exchange, key string) string {
	return clip("rpc-cancel/" + exchange + "/" + key)
}

// clip makes a text fit a short string.
func clip(s string) string {
	if len(s) > 255 {
		return s[:255]
	}
	return s
}

const idLength = 32

// newID makes a correlation id of 128 random bits. The generator is
// cryptographically strong (ChaCha8), so an id can't be guessed from others.
func newID() string {
	var raw [idLength / 2]byte
	var text [idLength]byte
	a, b := rand.Uint64(), rand.Uint64()
	for i := range 8 {
		raw[i], raw[8+i] = byte(a>>(8*i)), byte(b>>(8*i))
	}
	hex.Encode(text[:], raw[:])
	return string(text[:])
}

// withDeadline says in a request how long it may take. Headers are the
// caller's: a copy gets the new one.
func withDeadline(ctx context.Context, msg *amqp.Message) error {
	deadline, ok := ctx.Deadline()
	if !ok {
		return nil
	}
	left := time.Until(deadline).Milliseconds()
	if left <= 0 {
		return context.DeadlineExceeded
	}
	if msg.Expiration == "" {
		// The broker drops at once what has already expired, and takes no
		// more than 32 bits.
		msg.Expiration = strconv.FormatInt(min(left, math.MaxUint32), 10)
	}
	setHeader(msg, HeaderTimeout, left)
	return nil
}

// setHeader sets a header on a copy of the message's table.
func setHeader(msg *amqp.Message, key string, value any) {
	t := make(amqp.Table, len(msg.Headers)+2)
	for k, v := range msg.Headers {
		t[k] = v
	}
	t[key] = value
	msg.Headers = t
}

// integer reads a header that may be of any integer type, or text.
func integer(v any) (int64, bool) {
	switch v := v.(type) {
	case int64:
		return v, true
	case int32:
		return int64(v), true
	case int16:
		return int64(v), true
	case int8:
		return int64(v), true
	case uint8:
		return int64(v), true
	case uint16:
		return int64(v), true
	case uint32:
		return int64(v), true
	case string:
		n, err := strconv.ParseInt(v, 10, 64)
		return n, err == nil
	}
	return 0, false
}
