package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/warrenmq/warren/amqp"
)

// Middleware wraps a Handler in another.
type Middleware = func(Handler) Handler

// Chain wraps h in all of them, the first outermost.
func Chain(h Handler, all ...Middleware) Handler {
	for i := len(all) - 1; i >= 0; i-- {
		h = all[i](h)
	}
	return h
}

// Logging logs every request with its outcome and duration: at debug level,
// errors at warn. Bodies and headers are not logged.
func Logging(l *slog.Logger) Middleware {
	return func(next Handler) Handler {
		return func(ctx context.Context, req *Request) (*amqp.Message, error) {
			start := time.Now()
			msg, err := next(ctx, req)
			level := slog.LevelDebug
			attrs := []slog.Attr{slog.String("type", req.Type), slog.String("routing_key", req.RoutingKey), slog.Duration("took", time.Since(start))}
			if err != nil {
				level = slog.LevelWarn
				attrs = append(attrs, slog.Any("error", err))
			}
			l.LogAttrs(ctx, level, "rpc: request", attrs...)
			return msg, err
		}
	}
}

// Recovery turns a panic of what it wraps into an error, so that the
// middleware around it sees one. Serve itself does so too, outermost.
func Recovery(l *slog.Logger) Middleware {
	return func(next Handler) Handler {
		return func(ctx context.Context, req *Request) (msg *amqp.Message, err error) {
			defer func() {
				if v := recover(); v != nil {
					l.ErrorContext(ctx, "rpc: handler panicked", "routing_key", req.RoutingKey, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
					msg, err = nil, &RemoteError{Code: CodeInternal, Text: "the handler panicked"}
				}
			}()
			return next(ctx, req)
		}
	}
}

// Deadline bounds every request's time to limit, where the caller leaves more
// or says nothing.
func Deadline(limit time.Duration) Middleware {
	return func(next Handler) Handler {
		return func(ctx context.Context, req *Request) (*amqp.Message, error) {
			ctx, stop := context.WithTimeout(ctx, limit)
			defer stop()
			return next(ctx, req)
		}
	}
}

// Tracing calls start before each request, with its headers to take a parent
// span from, and the function that it returned when the request is done.
func Tracing(start func(ctx context.Context, req *Request) (context.Context, func(error))) Middleware {
	return func(next Handler) Handler {
		return func(ctx context.Context, req *Request) (*amqp.Message, error) {
			ctx, done := start(ctx, req)
			msg, err := next(ctx, req)
			done(err)
			return msg, err
		}
	}
}
