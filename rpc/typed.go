package rpc

import (
	"context"

	"github.com/warrenmq/warren/amqp"
)

// Call makes a call with Go values: req is encoded by the client's codec, the
// reply decoded as its content type says.
//
// Errors: as Client.Call, and *ContentTypeError for a reply that nobody here
// can read; errors of the codec.
func Call[Resp any](ctx context.Context, c *Client, to To, req any) (Resp, error) {
	var resp Resp
	codecs := withDefaults(c.opts.Codec)
	msg, err := encode(codecs[0], req)
	if err != nil {
		return resp, err
	}
	reply, err := c.Call(ctx, to, msg)
	if err != nil {
		return resp, err
	}
	return resp, decode(codecs, reply.ContentType, reply.Body, &resp)
}

// Typed makes a Handler of a function of Go values. A request is decoded as
// its content type says, by JSON, Bytes or the codecs given, and the reply is
// encoded by the same codec. A request that can't be decoded is answered with
// CodeBadRequest, one of a content type that nobody here can read with
// CodeUnsupported and a text that says which are wanted.
func Typed[Req, Resp any](f func(ctx context.Context, req Req) (Resp, error), codecs ...Codec) Handler {
	if len(codecs) == 0 {
		codecs = withDefaults(nil)
	}
	return func(ctx context.Context, r *Request) (*amqp.Message, error) {
		codec, err := choose(codecs, r.ContentType)
		if err != nil {
			return nil, &RemoteError{Code: CodeUnsupported, Text: err.Error()}
		}
		var req Req
		if err := codec.Decode(r.Body, target(&req)); err != nil {
			return nil, &RemoteError{Code: CodeBadRequest, Text: "the request can't be decoded: " + err.Error()}
		}
		resp, err := f(ctx, req)
		if err != nil {
			return nil, err
		}
		msg, err := encode(codec, resp)
		return &msg, err
	}
}

func encode(codec Codec, v any) (amqp.Message, error) {
	body, err := codec.Encode(v)
	if err != nil {
		return amqp.Message{}, err
	}
	msg := amqp.Message{Body: body}
	msg.ContentType = codec.ContentType()
	return msg, nil
}

func decode[T any](codecs []Codec, contentType string, body []byte, v *T) error {
	codec, err := choose(codecs, contentType)
	if err != nil {
		return err
	}
	return codec.Decode(body, target(v))
}
