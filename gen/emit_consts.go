package gen

import (
	"fmt"

	"github.com/dave/jennifer/jen"
)

func emitProtocol(f *jen.File, m *Model) {
	f.Comment("The protocol that the code in this file speaks.")
	f.Const().Defs(
		inner("ProtocolName", text{"is the protocol's name."}).Line().Id("ProtocolName").Op("=").Lit(m.Name),
		inner("ProtocolMajor", text{"is the first number of the protocol's version."}).Line().Id("ProtocolMajor").Op("=").Lit(m.Major),
		inner("ProtocolMinor", text{"is the second number of the protocol's version."}).Line().Id("ProtocolMinor").Op("=").Lit(m.Minor),
		inner("ProtocolRevision", text{"is the third number of the protocol's version."}).Line().Id("ProtocolRevision").Op("=").Lit(m.Revision),
		inner("ProtocolPort", text{"is the TCP port that is the protocol's by convention, without TLS."}).Line().Id("ProtocolPort").Op("=").Lit(m.Port),
	)
}

func emitConstants(f *jen.File, m *Model) {
	var plain []jen.Code
	for _, c := range m.Constants {
		if c.Type == replyCode {
			continue
		}
		s := inner(c.Go, c.Doc).Line().Id(c.Go)
		if c.Type != "" {
			s.Id(c.Type)
		}
		plain = append(plain, s.Op("=").Lit(int(c.Value)))
	}
	if len(plain) > 0 {
		f.Comment("Constants of the protocol.")
		f.Const().Defs(plain...)
	}
	f.Add(comment(docWidth, "The classes of methods. A content header carries the class that its content belongs to."))
	f.Const().DefsFunc(func(g *jen.Group) {
		for _, c := range m.Classes {
			g.Add(inner("Class"+c.Go, c.Doc).Line().Id("Class" + c.Go).Uint16().Op("=").Lit(int(c.ID)))
		}
	})
}

func emitReplyCode(f *jen.File, m *Model) {
	var codes []*Constant
	for _, c := range m.Constants {
		if c.Type == replyCode {
			codes = append(codes, c)
		}
	}
	f.Add(doc(replyCode, text{
		"says why a channel or connection was closed, or a message returned. It is an error, " +
			"so that errors.Is(err, NotFound) tells one reason from the others.",
		"The zero value is no reply code of the protocol. Codes that the spec does not list are values like any other, without a name."}))
	f.Type().Id(replyCode).Uint16()

	f.Comment("The reply codes that the spec lists.")
	f.Const().DefsFunc(func(g *jen.Group) {
		for _, c := range codes {
			what := map[string]string{"soft-error": "A soft error: it costs a channel at the most.", "hard-error": "A hard error: it costs the connection."}[c.Class]
			g.Add(inner(c.Go, oneParagraph(c.Doc, what)).Line().Id(c.Go).Id(replyCode).Op("=").Lit(int(c.Value)))
		}
	})

	recv := func() *jen.Statement { return f.Func().Params(jen.Id("c").Id(replyCode)) }
	f.Add(doc("String", text{"is the name that the spec gives the code, such as NOT_FOUND, or its number if it has none."}))
	recv().Id("String").Params().String().Block(
		jen.If(jen.Id("s").Op(":=").Id("c").Dot("name").Call(), jen.Id("s").Op("!=").Lit("")).Block(jen.Return(jen.Id("s"))),
		jen.Return(jen.Qual("strconv", "Itoa").Call(jen.Int().Call(jen.Id("c")))),
	)
	f.Comment("Error is the code's number and name, such as \"404 NOT_FOUND\".")
	recv().Id("Error").Params().String().Block(
		jen.Id("s").Op(":=").Qual("strconv", "Itoa").Call(jen.Int().Call(jen.Id("c"))),
		jen.If(jen.Id("name").Op(":=").Id("c").Dot("name").Call(), jen.Id("name").Op("!=").Lit("")).Block(
			jen.Id("s").Op("+=").Lit(" ").Op("+").Id("name")),
		jen.Return(jen.Id("s")),
	)
	emitSeverity(f, codes, "Hard", "hard-error", "Hard reports whether the spec has the code close the whole connection.")
	emitSeverity(f, codes, "Soft", "soft-error", "Soft reports whether the spec has the code close no more than a channel.")

	f.Comment("name is the name that the spec gives the code; empty if it has none.")
	recv().Id("name").Params().String().BlockFunc(func(g *jen.Group) {
		if len(codes) > 0 {
			g.Switch(jen.Id("c")).BlockFunc(func(g *jen.Group) {
				for _, c := range codes {
					g.Case(jen.Id(c.Go)).Block(jen.Return(jen.Lit(wireName(c.Name))))
				}
			})
		}
		g.Return(jen.Lit(""))
	})
}

func emitSeverity(f *jen.File, codes []*Constant, name, class, text string) {
	var cases []jen.Code
	for _, c := range codes {
		if c.Class == class {
			cases = append(cases, jen.Line().Id(c.Go))
		}
	}
	f.Comment(text)
	f.Func().Params(jen.Id("c").Id(replyCode)).Id(name).Params().Bool().BlockFunc(func(g *jen.Group) {
		if len(cases) > 0 {
			g.Switch(jen.Id("c")).Block(jen.Case(cases...).Block(jen.Return(jen.True())))
		}
		g.Return(jen.False())
	})
}

// oneParagraph adds a sentence to the last paragraph of t.
func oneParagraph(t text, sentence string) text {
	if sentence == "" || len(t) == 0 {
		return t
	}
	out := append(text{}, t...)
	out[len(out)-1] += " " + sentence
	return out
}

func emitMethodIDs(f *jen.File, m *Model) {
	f.Add(doc("MethodID", text{"names a method: its class in the upper 16 bits and its number within the class in the lower."}))
	f.Type().Id("MethodID").Uint32()

	f.Comment("The methods of the protocol.")
	f.Const().DefsFunc(func(g *jen.Group) {
		for _, c := range m.Classes {
			for _, x := range c.Methods {
				g.Add(comment(docWidth-4, fmt.Sprintf("%s is %s, see [%s].", x.Const(), x.FullName(), x.Go)).Line().
					Id(x.Const()).Id("MethodID").Op("=").Lit(int(c.ID)).Op("<<").Lit(16).Op("|").Lit(int(x.ID)))
			}
		}
	})

	f.Add(doc("String", text{"is the method's name with its class, such as queue.declare, or the two numbers of an id that " +
		"the spec does not have."}))
	f.Func().Params(jen.Id("id").Id("MethodID")).Id("String").Params().String().Block(
		jen.If(jen.Id("i").Op(":=").Id("infoOf").Call(jen.Id("id")), jen.Id("i").Op("!=").Nil()).Block(jen.Return(jen.Id("i").Dot("name"))),
		jen.Return(jen.Qual("strconv", "Itoa").Call(jen.Int().Call(jen.Id("id").Op(">>").Lit(16))).Op("+").Lit(".").Op("+").
			Qual("strconv", "Itoa").Call(jen.Int().Call(jen.Id("id").Op("&").Lit(0xFFFF)))),
	)
}

// emitTable writes what the engine asks about methods: a table of facts, and a way to make one.
func emitTable(f *jen.File, m *Model) {
	var all []*Method
	for _, c := range m.Classes {
		all = append(all, c.Methods...)
	}
	f.Comment("methodTable holds the facts about every method, by class and number. Nothing changes it.")
	f.Var().Id("methodTable").Op("=").Index(jen.Op("...")).Id("methodInfo").ValuesFunc(func(g *jen.Group) {
		for _, x := range all {
			g.Add(jen.Line().Add(methodRow(x)))
		}
		g.Line()
	})
	f.Comment("infoOf finds the facts about a method; nil when the spec does not have it.")
	f.Func().Id("infoOf").Params(jen.Id("id").Id("MethodID")).Op("*").Id("methodInfo").Block(
		jen.Switch(jen.Id("id")).BlockFunc(func(g *jen.Group) {
			for i, x := range all {
				g.Case(jen.Id(x.Const())).Block(jen.Return(jen.Op("&").Id("methodTable").Index(jen.Lit(i))))
			}
		}),
		jen.Return(jen.Nil()),
	)
	f.Comment("newMethod makes an empty method to decode into; nil when the spec does not have it.")
	f.Func().Id("newMethod").Params(jen.Id("id").Id("MethodID")).Id("decodable").Block(
		jen.Switch(jen.Id("id")).BlockFunc(func(g *jen.Group) {
			for _, x := range all {
				g.Case(jen.Id(x.Const())).Block(jen.Return(jen.Op("&").Id(x.Go).Values()))
			}
		}),
		jen.Return(jen.Nil()),
	)
}

func methodRow(x *Method) *jen.Statement {
	return jen.ValuesFunc(func(g *jen.Group) {
		g.Id("id").Op(":").Id(x.Const())
		g.Id("name").Op(":").Lit(x.FullName())
		g.Id("class").Op(":").Lit(x.Class.Name)
		for _, b := range []struct {
			name string
			set  bool
		}{{"sync", x.Sync}, {"content", x.Content}, {"fromClient", x.FromClient},
			{"fromServer", x.FromServer}, {"reply", x.Reply}, {"hasNoWait", x.NoWait() != nil}} {
			if b.set {
				g.Id(b.name).Op(":").True()
			}
		}
		if len(x.Replies) > 0 {
			g.Id("replies").Op(":").Index().Id("MethodID").ValuesFunc(func(g *jen.Group) {
				for _, r := range x.Replies {
					g.Id(r.Const())
				}
			})
		}
	})
}
