package gen

import (
	"fmt"

	"github.com/dave/jennifer/jen"
)

// flagLayout is how the flags of a property list map to one Go number: the first 16-bit word of the
// wire in the highest place, each word's last bit (continuation) unused.
type flagLayout struct {
	words int
	bits  int // of the Go type
}

func layoutOf(s *PropertySet) flagLayout {
	words := max(1, (len(s.Fields)+14)/15)
	bits := 16
	for bits < 16*words {
		bits *= 2
	}
	return flagLayout{words: words, bits: bits}
}

func (l flagLayout) goType() *jen.Statement { return jen.Id(fmt.Sprintf("uint%d", l.bits)) }

// bit is the place of property i in the Go number.
func (l flagLayout) bit(i int) int { return 16*(l.words-1-i/15) + 15 - i%15 }

// emitProperties writes the property list of a class: its flags, struct and codec.
func emitProperties(f *jen.File, s *PropertySet) {
	l := layoutOf(s)
	f.Add(doc(s.Flags, text{"is a set of properties: those that are there. Its bits are those of the wire."}))
	f.Type().Id(s.Flags).Add(l.goType())
	if len(public(s.Fields)) > 0 {
		f.Comment("The flags of [" + s.Go + "].")
		f.Const().DefsFunc(func(g *jen.Group) {
			for i, x := range s.Fields {
				if !x.Omit {
					name := s.Prefix + x.Go
					g.Add(inner(name, text{"says that " + x.Go + " is there."}))
					g.Id(name).Id(s.Flags).Op("=").Lit(1).Op("<<").Lit(l.bit(i))
				}
			}
		})
	}
	f.Add(doc(s.Go, oneParagraph(s.Doc, "They belong to the content of class "+s.Class.Name+"."),
		"A property is sent when its field is not zero or its bit in Present is set, and what is received has "+
			"exactly the bits of what was there: so a property that is absent and one that is zero stay apart.",
		source(s.Source)))
	f.Type().Id(s.Go).StructFunc(func(g *jen.Group) {
		g.Add(inner("Present", text{"adds properties that are sent although they are zero. After decoding, it tells all that were there."}))
		g.Id("Present").Id(s.Flags)
		structFields(g, s.Fields)
	})
	emitFlags(f, s)
	emitPropertiesEncoder(f, s, l)
	emitPropertiesDecoder(f, s, l)
}

// emitFlags writes the method that finds which properties to send.
func emitFlags(f *jen.File, s *PropertySet) {
	f.Comment("flags is the set of properties to send.")
	f.Func().Params(jen.Id("p").Op("*").Id(s.Go)).Id("flags").Params().Id(s.Flags).BlockFunc(func(g *jen.Group) {
		if len(public(s.Fields)) == 0 {
			g.Return(jen.Lit(0))
			return
		}
		g.Id("f").Op(":=").Id("p").Dot("Present").Op("&").Parens(allFlags(s))
		var strings, tests []jen.Code
		lengths := jen.Null()
		for _, x := range public(s.Fields) {
			test := jen.If(nonZero(x)).Block(jen.Id("f").Op("|=").Id(s.Prefix + x.Go))
			if x.Type != "shortstr" && x.Type != "longstr" {
				tests = append(tests, test)
				continue
			}
			if len(strings) > 0 {
				lengths.Op("|").Line()
			}
			lengths.Len(jen.Id("p").Dot(x.Go))
			strings = append(strings, test)
		}
		if len(strings) > 0 {
			g.Comment("Most messages have no strings, and one test is quicker than many.")
			g.If(lengths.Op("!=").Lit(0)).Block(strings...)
		}
		for _, test := range tests {
			g.Add(test)
		}
		g.Return(jen.Id("f"))
	})
}

func allFlags(s *PropertySet) *jen.Statement {
	all := jen.Null()
	for i, x := range public(s.Fields) {
		if i > 0 {
			all.Op("|").Line()
		}
		all.Id(s.Prefix + x.Go)
	}
	return all
}

// nonZero is the condition under which a property is sent without being asked for.
func nonZero(x *Field) *jen.Statement {
	v := jen.Id("p").Dot(x.Go)
	switch x.Type {
	case "shortstr", "longstr":
		return v.Op("!=").Lit("")
	case "table":
		return jen.Len(v).Op("!=").Lit(0)
	case "timestamp":
		return jen.Op("!").Add(v).Dot("IsZero").Call()
	default:
		return v.Op("!=").Lit(0)
	}
}

func emitPropertiesEncoder(f *jen.File, s *PropertySet, l flagLayout) {
	f.Add(doc("AppendTo", text{"appends the flags, and the properties that are there, in wire form to dst."}, encodeErrors))
	f.Func().Params(jen.Id("p").Op("*").Id(s.Go)).Id("AppendTo").Params(jen.Id("dst").Index().Byte()).
		Params(jen.Index().Byte(), jen.Error()).BlockFunc(func(g *jen.Group) {
		if len(public(s.Fields)) == 0 {
			g.Return(jen.Append(jen.Id("dst"), jen.Lit(0), jen.Lit(0)), jen.Nil())
			return
		}
		g.Id("f").Op(":=").Id("p").Dot("flags").Call()
		g.If(jen.Id("f").Op("==").Lit(0)).Block(jen.Return(jen.Append(jen.Id("dst"), jen.Lit(0), jen.Lit(0)), jen.Nil()))
		appendFlags(g, l)
		for _, x := range public(s.Fields) {
			e := &encoder{name: s.Class.Name + " properties", recv: "p", started: true}
			e.check(x)
			e.field(x)
			e.flush()
			g.If(jen.Id("f").Op("&").Id(s.Prefix + x.Go).Op("!=").Lit(0)).Block(e.out...)
		}
		g.Return(jen.Id("b"), jen.Nil())
	})
}

// appendFlags writes the words of the flags, as many as there are before nothing but zeros follows.
func appendFlags(g *jen.Group, l flagLayout) {
	if l.words == 1 {
		g.Id("b").Op(":=").Add(appendInt("short", jen.Id("dst"), jen.Uint16().Call(jen.Id("f"))))
		return
	}
	g.Id("b").Op(":=").Id("dst")
	g.For(jen.List(jen.Id("shift")).Op(":=").Lit(16*(l.words-1)), jen.Empty(), jen.Id("shift").Op("-=").Lit(16)).Block(
		jen.Id("word").Op(":=").Uint16().Call(jen.Id("f").Op(">>").Id("shift")),
		jen.Id("rest").Op(":=").Id("f").Op("&").Parens(jen.Lit(1).Op("<<").Id("shift").Op("-").Lit(1)),
		jen.If(jen.Id("rest").Op("==").Lit(0)).Block(
			jen.Id("b").Op("=").Add(appendInt("short", jen.Id("b"), jen.Id("word"))),
			jen.Break(),
		),
		jen.Comment("// The last bit says that another word follows."),
		jen.Id("b").Op("=").Add(appendInt("short", jen.Id("b"), jen.Id("word").Op("|").Lit(1))),
	)
}

func emitPropertiesDecoder(f *jen.File, s *PropertySet, l flagLayout) {
	f.Add(doc("DecodeFrom", text{"reads flags and properties from all of args, of which it keeps nothing."},
		"Errors: *Error for what is malformed, too short or too long, and for flags that the spec does not have; "+
			"p is then in no useful state."))
	f.Func().Params(jen.Id("p").Op("*").Id(s.Go)).Id("DecodeFrom").Params(jen.Id("args").Index().Byte()).Error().Block(
		jen.Id("d").Op(":=").Id("decoder").Values(jen.Dict{jen.Id("p"): jen.Id("args")}),
		jen.Id("p").Dot("decode").Call(jen.Op("&").Id("d")),
		jen.Return(jen.Id("d").Dot("finish").Call()),
	)
	f.Comment("decode reads flags and properties from d, which keeps the error.")
	f.Func().Params(jen.Id("p").Op("*").Id(s.Go)).Id("decode").Params(jen.Id("d").Op("*").Id("decoder")).BlockFunc(func(g *jen.Group) {
		g.Op("*").Id("p").Op("=").Id(s.Go).Values()
		readFlags(g, s, l)
		for i, x := range s.Fields {
			flag := jen.Id(s.Prefix + x.Go)
			if x.Omit {
				flag = jen.Parens(jen.Lit(1).Op("<<").Lit(l.bit(i)))
			}
			g.If(jen.Id("f").Op("&").Add(flag).Op("!=").Lit(0)).Block(decodeField("p", x))
		}
	})
}

// readFlags reads the flags into f, and refuses those that stand for no property: nobody can tell how
// long the value of one is.
func readFlags(g *jen.Group, s *PropertySet, l flagLayout) {
	known := jen.Id(fmt.Sprintf("%#x", knownFlags(s, l)))
	refuse := func() []jen.Code {
		return []jen.Code{
			jen.Id("d").Dot("fail").Call(jen.Id("syntaxError").Call(jen.Lit(s.Class.Name + " properties with flags that the spec does not have"))),
			jen.Return(),
		}
	}
	if l.words == 1 {
		g.Id("f").Op(":=").Id(s.Flags).Call(jen.Id("d").Dot("short").Call())
	} else {
		g.Var().Id("f").Id(s.Flags)
		g.For(jen.Id("shift").Op(":=").Lit(16*(l.words-1)), jen.Empty(), jen.Id("shift").Op("-=").Lit(16)).Block(
			jen.Id("word").Op(":=").Id("d").Dot("short").Call(),
			jen.Id("f").Op("|=").Id(s.Flags).Call(jen.Id("word").Op("&^").Lit(1)).Op("<<").Id("shift"),
			jen.If(jen.Id("word").Op("&").Lit(1).Op("==").Lit(0)).Block(jen.Break()),
			jen.If(jen.Id("shift").Op("==").Lit(0)).Block(refuse()...),
		)
	}
	g.If(jen.Id("f").Op("&^").Add(known).Op("!=").Lit(0)).Block(refuse()...)
	if len(public(s.Fields)) > 0 {
		g.Id("p").Dot("Present").Op("=").Id("f").Op("&").Parens(allFlags(s))
	}
}

func knownFlags(s *PropertySet, l flagLayout) uint64 {
	var known uint64
	for i := range s.Fields {
		known |= 1 << l.bit(i)
	}
	return known
}
