package rpc

import (
	"encoding/json"
	"fmt"
	"mime"
	"reflect"
	"strings"
)

// Codec turns Go values into message bodies and back.
type Codec interface {
	// ContentType is what the codec writes, such as "application/json".
	ContentType() string
	Encode(v any) ([]byte, error)
	Decode(body []byte, v any) error
}

// JSON is the codec of encoding/json, and the default.
var JSON Codec = jsonCodec{}

type jsonCodec struct{}

func (jsonCodec) ContentType() string             { return "application/json" }
func (jsonCodec) Encode(v any) ([]byte, error)    { return json.Marshal(v) }
func (jsonCodec) Decode(body []byte, v any) error { return json.Unmarshal(body, v) }

// Bytes is the codec of []byte and string, as they are.
var Bytes Codec = bytesCodec{}

type bytesCodec struct{}

func (bytesCodec) ContentType() string { return "application/octet-stream" }

func (bytesCodec) Encode(v any) ([]byte, error) {
	switch v := v.(type) {
	case []byte:
		return v, nil
	case string:
		return []byte(v), nil
	}
	return nil, fmt.Errorf("rpc: the codec of bytes takes []byte and string, not %T", v)
}

func (bytesCodec) Decode(body []byte, v any) error {
	switch v := v.(type) {
	case *[]byte:
		*v = append([]byte(nil), body...)
		return nil
	case *string:
		*v = string(body)
		return nil
	}
	return fmt.Errorf("rpc: the codec of bytes fills *[]byte and *string, not %T", v)
}

// Proto makes a codec for messages that encode themselves, as those of
// protobuf do, without importing protobuf: give it proto.Marshal and
// proto.Unmarshal, with M as proto.Message.
func Proto[M any](marshal func(M) ([]byte, error), unmarshal func([]byte, M) error) Codec {
	return protoCodec[M]{marshal, unmarshal}
}

type protoCodec[M any] struct {
	marshal   func(M) ([]byte, error)
	unmarshal func([]byte, M) error
}

func (protoCodec[M]) ContentType() string { return "application/x-protobuf" }

func (c protoCodec[M]) Encode(v any) ([]byte, error) {
	m, ok := v.(M)
	if !ok {
		return nil, fmt.Errorf("rpc: the codec of protobuf does not take %T", v)
	}
	return c.marshal(m)
}

func (c protoCodec[M]) Decode(body []byte, v any) error {
	m, ok := v.(M)
	if !ok {
		return fmt.Errorf("rpc: the codec of protobuf does not fill %T", v)
	}
	return c.unmarshal(body, m)
}

// ContentTypeError says that a message came with a content type that nobody
// here can read.
type ContentTypeError struct {
	Got    string
	Wanted []string
}

// Error says what came and what was wanted.
func (e *ContentTypeError) Error() string {
	return fmt.Sprintf("rpc: content type %q, wanted %s", e.Got, strings.Join(e.Wanted, " or "))
}

// choose finds the codec of a content type: the first, the preferred one,
// where the message names none.
func choose(codecs []Codec, contentType string) (Codec, error) {
	if contentType == "" {
		return codecs[0], nil
	}
	base, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		base = contentType
	}
	e := &ContentTypeError{Got: contentType}
	for _, c := range codecs {
		if strings.EqualFold(base, c.ContentType()) {
			return c, nil
		}
		e.Wanted = append(e.Wanted, c.ContentType())
	}
	return nil, e
}

// withDefaults are the codecs that can be read: the preferred, then those that
// are always there.
func withDefaults(preferred Codec) []Codec {
	if preferred == nil {
		return []Codec{JSON, Bytes}
	}
	return []Codec{preferred, JSON, Bytes}
}

// target is what a codec fills: v itself, or what v points to where that is a
// pointer already, made anew (a protobuf message).
func target[T any](v *T) any {
	rv := reflect.ValueOf(v).Elem()
	if rv.Kind() == reflect.Pointer {
		rv.Set(reflect.New(rv.Type().Elem()))
		return rv.Interface()
	}
	return v
}
