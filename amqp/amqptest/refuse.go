package amqptest

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/warrenmq/warren/amqp"
)

// refusal is an exception: what a channel.close or connection.close says,
// depending on whether its code is a soft or a hard one.
type refusal struct {
	code     amqp.ReplyCode
	text     string // after "NOT_FOUND - "
	noMethod bool   // it is not laid to the method that met it
}

func (r *refusal) Error() string { return r.reply() }

// reply is the reply-text, cut where RabbitMQ cuts it.
func (r *refusal) reply() string {
	text := r.code.String()
	if r.text != "" {
		text += " - " + r.text
	}
	if len(text) > 255 {
		text = text[:252] + "..."
	}
	return text
}

func sprintf(format string, args ...any) string { return fmt.Sprintf(format, args...) }

func refusef(code amqp.ReplyCode, format string, args ...any) error {
	return &refusal{code: code, text: fmt.Sprintf(format, args...)}
}

func (vh *vhost) noQueue(name string) error {
	return refusef(amqp.NotFound, "no queue '%s' in vhost '%s'", name, vh.name)
}

func (vh *vhost) noExchange(name string) error {
	return refusef(amqp.NotFound, "no exchange '%s' in vhost '%s'", name, vh.name)
}

func refuseDefaultExchange() error {
	return refusef(amqp.AccessRefused, "operation not permitted on the default exchange")
}

func (q *queue) locked() error {
	return refusef(amqp.ResourceLocked, "cannot obtain exclusive access to locked queue '%s' in vhost '%s'. "+
		"It could be originally declared on another connection or the exclusive property value does not match "+
		"that of the original declaration.", q.name, q.vh.name)
}

// intValue reads any of the whole numbers that a table can hold.
func intValue(v any) (int64, bool) {
	switch n := v.(type) {
	case int8:
		return int64(n), true
	case uint8:
		return int64(n), true
	case int16:
		return int64(n), true
	case uint16:
		return int64(n), true
	case int32:
		return int64(n), true
	case uint32:
		return int64(n), true
	case int64:
		return n, true
	case uint64:
		return int64(n), true
	case int:
		return int64(n), true
	}
	return 0, false
}

// typeName is what RabbitMQ calls the type of a field value.
func typeName(v any) string {
	switch v.(type) {
	case nil:
		return "void"
	case bool:
		return "bool"
	case int8:
		return "byte"
	case uint8:
		return "unsignedbyte"
	case int16:
		return "short"
	case uint16:
		return "unsignedshort"
	case int32:
		return "signedint"
	case uint32:
		return "unsignedint"
	case int64, int, uint64:
		return "long"
	case float32:
		return "float"
	case float64:
		return "double"
	case string:
		return "longstr"
	case []byte:
		return "binary"
	case amqp.Decimal:
		return "decimal"
	case time.Time:
		return "timestamp"
	case amqp.Table:
		return "table"
	case []any:
		return "array"
	}
	return "unknown"
}

// plainValue is a field value as RabbitMQ's texts quote it.
func plainValue(v any) string {
	switch x := v.(type) {
	case string:
		return x
	case bool:
		return strconv.FormatBool(x)
	case time.Time:
		return strconv.FormatInt(x.Unix(), 10)
	}
	return erlangTerm(v)
}

// erlangTerm is a field value as Erlang prints it.
func erlangTerm(v any) string {
	if n, ok := intValue(v); ok {
		return strconv.FormatInt(n, 10)
	}
	switch x := v.(type) {
	case nil:
		return "undefined"
	case string:
		return "<<" + strconv.Quote(x) + ">>"
	case []byte:
		return "<<" + strconv.Quote(string(x)) + ">>"
	case bool:
		return strconv.FormatBool(x)
	case []any:
		var parts []string
		for _, e := range x {
			parts = append(parts, "{"+typeName(e)+","+erlangTerm(e)+"}")
		}
		return "[" + strings.Join(parts, ",") + "]"
	}
	return fmt.Sprint(v)
}
