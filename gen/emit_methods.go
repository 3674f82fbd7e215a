package gen

import (
	"fmt"

	"github.com/dave/jennifer/jen"
)

// emitMethod writes a method's struct and codec.
func emitMethod(f *jen.File, m *Method) {
	f.Add(doc(m.Go, m.Doc, methodFacts(m), source(m.Source)))
	f.Type().Id(m.Go).StructFunc(func(g *jen.Group) { structFields(g, m.Fields) })

	f.Comment("MethodID is " + m.Const() + ".")
	f.Func().Params(jen.Id(m.Go)).Id("MethodID").Params().Id("MethodID").Block(jen.Return(jen.Id(m.Const())))

	emitMethodEncoder(f, m)
	emitMethodDecoder(f, m)
	if x := m.NoWait(); x != nil && !x.Omit {
		f.Comment("noWait reports whether the method asks for no reply.")
		f.Func().Params(jen.Id("m").Id(m.Go)).Id("noWait").Params().Bool().Block(jen.Return(jen.Id("m").Dot(x.Go)))
	}
}

// methodFacts is the paragraph of a method's doc that says where it stands in the protocol.
func methodFacts(m *Method) string {
	from := "the client or the server"
	switch {
	case !m.FromServer:
		from = "the client"
	case !m.FromClient:
		from = "the server"
	}
	s := fmt.Sprintf("It is %s, class %d method %d, sent by %s", m.FullName(), m.Class.ID, m.ID, from)
	if m.Content {
		s += ", with a message"
	}
	if len(m.Replies) > 0 {
		s += "; the reply is " + links(m.Replies)
	}
	return s + "."
}

func structFields(g *jen.Group, fields []*Field) {
	for _, x := range public(fields) {
		g.Add(inner(x.Go, oneParagraph(x.Doc, defaultNote(x))))
		g.Id(x.Go).Add(goType(x))
	}
}

// defaultNote says that the spec's default is another than the Go zero value that is sent.
func defaultNote(x *Field) string {
	var v string
	switch d := x.Default.(type) {
	case bool:
		if !d {
			return ""
		}
		v = "true"
	case int64:
		if d == 0 {
			return ""
		}
		v = fmt.Sprint(d)
	case string:
		if d == "" {
			return ""
		}
		v = fmt.Sprintf("%q", d)
	default:
		return ""
	}
	return "The spec's default is " + v + "; the zero value is sent as it is."
}

func goType(x *Field) *jen.Statement {
	if x.GoType != "" {
		return jen.Id(x.GoType)
	}
	switch x.Type {
	case "bit":
		return jen.Bool()
	case "octet":
		return jen.Uint8()
	case "short":
		return jen.Uint16()
	case "long":
		return jen.Uint32()
	case "longlong":
		return jen.Uint64()
	case "table":
		return jen.Id("Table")
	case "timestamp":
		return jen.Qual("time", "Time")
	default:
		return jen.String()
	}
}

const encodeErrors = "Errors: *EncodeError for what has no wire form, and then dst is returned as it was given."

func emitMethodEncoder(f *jen.File, m *Method) {
	e := &encoder{name: m.FullName(), recv: "m"}
	errs := "It never fails."
	for _, x := range m.Public() {
		if x.Type == "shortstr" || x.Type == "longstr" || x.Type == "table" {
			errs = encodeErrors
		}
	}
	f.Add(doc("AppendTo", text{"appends the method's arguments in wire form to dst."}, errs))
	body := e.method(m.Fields)
	recv := jen.Id("m").Id(m.Go)
	if len(m.Public()) == 0 {
		recv = jen.Id(m.Go)
	}
	f.Func().Params(recv).Id("AppendTo").Params(jen.Id("dst").Index().Byte()).Params(jen.Index().Byte(), jen.Error()).Block(body...)
}

func emitMethodDecoder(f *jen.File, m *Method) {
	f.Add(doc("DecodeFrom", text{"reads the method's arguments from all of args, of which it keeps nothing."},
		"Errors: *Error for what is malformed, too short or too long; m is then in no useful state."))
	f.Func().Params(jen.Id("m").Op("*").Id(m.Go)).Id("DecodeFrom").Params(jen.Id("args").Index().Byte()).Error().Block(
		jen.Id("d").Op(":=").Id("decoder").Values(jen.Dict{jen.Id("p"): jen.Id("args")}),
		jen.Id("m").Dot("decode").Call(jen.Op("&").Id("d")),
		jen.Return(jen.Id("d").Dot("finish").Call()),
	)
	recv := jen.Id("m").Op("*").Id(m.Go)
	if len(m.Public()) == 0 {
		recv = jen.Op("*").Id(m.Go)
	}
	f.Comment("decode reads the method's arguments from d, which keeps the error.")
	if len(m.Fields) == 0 {
		f.Func().Params(recv).Id("decode").Params(jen.Op("*").Id("decoder")).Block()
		return
	}
	f.Func().Params(recv).Id("decode").Params(jen.Id("d").Op("*").Id("decoder")).Block(decodeFields(m.Fields)...)
}
