// Package rpc makes a call over AMQP as ordinary as one over HTTP: a request
// goes to a queue, a server answers to the request's reply-to, and the
// correlation id brings the answer to the caller that waits for it.
//
//	client := rpc.NewClient(conn, nil)            // an amqp.Client or an amqp.Conn
//	sum, err := rpc.Call[int](ctx, client, rpc.Queue("add"), []int{1, 2})
//
//	err := rpc.Serve(ctx, channel, "add", rpc.Typed(func(ctx context.Context, terms []int) (int, error) {
//		...
//	}), nil)
//
// What goes over the wire is plain AMQP, so that programs in other languages
// can call and serve: docs/rpc-wire.md describes it.
//
// Source: https://www.rabbitmq.com/tutorials/tutorial-six-go,
// https://www.rabbitmq.com/docs/direct-reply-to.
package rpc
