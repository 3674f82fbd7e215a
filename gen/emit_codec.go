package gen

import (
	"fmt"

	"github.com/dave/jennifer/jen"
)

// encoder writes the statements of an AppendTo, which append to b what they find in the receiver.
// Neighbouring octets go out in one append.
type encoder struct {
	name string // what errors call the whole: queue.declare
	recv string // the receiver's name
	out  []jen.Code

	octets  []jen.Code // waiting to be appended together
	started bool       // b is declared
	tables  int        // tables appended so far
}

// method writes the whole body for a method. Lengths are checked before anything is appended.
func (e *encoder) method(fields []*Field) []jen.Code {
	if len(fields) == 0 {
		return []jen.Code{jen.Return(jen.Id("dst"), jen.Nil())}
	}
	for _, x := range public(fields) {
		e.check(x)
	}
	groups := bitGroups(fields)
	for _, g := range groups {
		e.declareBits(g)
	}
	for i := 0; i < len(fields); i++ {
		if fields[i].Type != "bit" {
			e.field(fields[i])
			continue
		}
		e.octets = append(e.octets, groups[0].value())
		i += len(groups[0].fields) - 1
		groups = groups[1:]
	}
	e.flush()
	e.add(jen.Return(jen.Id("b"), jen.Nil()))
	return e.out
}

func (e *encoder) add(c ...jen.Code) { e.out = append(e.out, c...) }

func (e *encoder) get(x *Field) *jen.Statement { return jen.Id(e.recv).Dot(x.Go) }

// dst is what to append to, after all octets that wait.
func (e *encoder) dst() *jen.Statement {
	e.flush()
	if e.started {
		return jen.Id("b")
	}
	return jen.Id("dst")
}

// assign makes v the new b.
func (e *encoder) assign(v *jen.Statement) {
	if e.started {
		e.add(jen.Id("b").Op("=").Add(v))
		return
	}
	e.started = true
	e.add(jen.Id("b").Op(":=").Add(v))
}

func (e *encoder) flush() {
	if len(e.octets) == 0 {
		return
	}
	args := e.octets
	e.octets = nil
	e.assign(jen.Append(append([]jen.Code{e.dst()}, args...)...))
}

// check refuses a string that its length prefix can't count.
func (e *encoder) check(x *Field) {
	n := func() *jen.Statement { return jen.Len(e.get(x)) }
	switch x.Type {
	case "shortstr":
		e.add(jen.If(n().Op(">").Lit(255)).Block(
			jen.Return(jen.Id("dst"), jen.Id("shortstrError").Call(jen.Lit(e.name), jen.Lit(x.Name), n()))))
	case "longstr":
		e.add(jen.If(jen.Uint64().Call(n()).Op(">").Lit(1).Op("<<").Lit(32).Op("-").Lit(1)).Block(
			jen.Return(jen.Id("dst"), jen.Id("longstrError").Call(jen.Lit(e.name), jen.Lit(x.Name), n()))))
	}
}

// field appends one field that is no bit.
func (e *encoder) field(x *Field) {
	if x.Omit {
		e.constant(x)
		return
	}
	v := func() *jen.Statement {
		if x.GoType != "" {
			return jen.Uint16().Call(e.get(x))
		}
		return e.get(x)
	}
	switch x.Type {
	case "octet":
		e.octets = append(e.octets, v())
	case "short", "long", "longlong":
		e.assign(appendInt(x.Type, e.dst(), v()))
	case "timestamp":
		e.assign(jen.Id("appendTimestamp").Call(e.dst(), v()))
	case "shortstr":
		e.octets = append(e.octets, jen.Byte().Call(jen.Len(v())))
		e.assign(jen.Append(e.dst(), v().Op("...")))
	case "longstr":
		e.assign(appendInt("long", e.dst(), jen.Uint32().Call(jen.Len(v()))))
		e.assign(jen.Append(e.dst(), v().Op("...")))
	case "table":
		e.table(x)
	}
}

func appendInt(typ string, dst, v *jen.Statement) *jen.Statement {
	name := map[string]string{"short": "AppendUint16", "long": "AppendUint32", "longlong": "AppendUint64"}[typ]
	return jen.Qual(binaryPkg, "BigEndian").Dot(name).Call(dst, v)
}

// table appends a table, the only field that can fail after others were appended.
func (e *encoder) table(x *Field) {
	op := "="
	if e.tables++; e.tables == 1 {
		op = ":="
	}
	e.add(jen.List(jen.Id("t"), jen.Err()).Op(op).Id("appendTable").Call(e.dst(), e.get(x)))
	e.add(jen.If(jen.Err().Op("!=").Nil()).Block(
		jen.Return(jen.Id("dst"), jen.Id("inField").Call(jen.Err(), jen.Lit(e.name), jen.Lit(x.Name)))))
	e.assign(jen.Id("t"))
}

// constant appends the default of a field that the struct does not have.
func (e *encoder) constant(x *Field) {
	s, _ := x.Default.(string)
	n, _ := x.Default.(int64)
	size := map[string]int{"octet": 1, "short": 2, "long": 4, "longlong": 8, "timestamp": 8,
		"shortstr": 1, "longstr": 4, "table": 4}[x.Type]
	if s != "" {
		n = int64(len(s))
	}
	for i := size - 1; i >= 0; i-- {
		e.octets = append(e.octets, jen.Lit(int(byte(n>>(8*i)))))
	}
	if s != "" {
		e.assign(jen.Append(e.dst(), jen.Lit(s).Op("...")))
	}
}

// bitGroup is a run of bits that share an octet: up to eight in a row, the first in the lowest place.
type bitGroup struct {
	name   string // of the local variable
	fields []*Field
}

func bitGroups(fields []*Field) []*bitGroup {
	var out []*bitGroup
	open := false
	for _, x := range fields {
		if x.Type != "bit" {
			open = false
			continue
		}
		if !open || len(out[len(out)-1].fields) == 8 {
			name := "bits"
			if len(out) > 0 {
				name = fmt.Sprintf("bits%d", len(out)+1)
			}
			out = append(out, &bitGroup{name: name})
			open = true
		}
		g := out[len(out)-1]
		g.fields = append(g.fields, x)
	}
	return out
}

// constant is the octet as far as it does not depend on the struct.
func (g *bitGroup) constant() int {
	v := 0
	for i, x := range g.fields {
		if d, _ := x.Default.(bool); d && x.Omit {
			v |= 1 << i
		}
	}
	return v
}

// value is the octet's expression: the variable, or a number where the struct has none of the bits.
func (g *bitGroup) value() *jen.Statement {
	if len(public(g.fields)) == 0 {
		return jen.Lit(g.constant())
	}
	return jen.Id(g.name)
}

func (e *encoder) declareBits(g *bitGroup) {
	if len(public(g.fields)) == 0 {
		return
	}
	if v := g.constant(); v != 0 {
		e.add(jen.Id(g.name).Op(":=").Byte().Call(jen.Lit(v)))
	} else {
		e.add(jen.Var().Id(g.name).Byte())
	}
	for i, x := range g.fields {
		if !x.Omit {
			e.add(jen.If(e.get(x)).Block(jen.Id(g.name).Op("|=").Lit(1).Op("<<").Lit(i)))
		}
	}
}

// decodeFields writes the body of a method's decode.
func decodeFields(fields []*Field) []jen.Code {
	var out []jen.Code
	groups := bitGroups(fields)
	for i := 0; i < len(fields); i++ {
		if fields[i].Type != "bit" {
			out = append(out, decodeField("m", fields[i]))
			continue
		}
		g := groups[0]
		groups = groups[1:]
		i += len(g.fields) - 1
		out = append(out, decodeBits(g)...)
	}
	return out
}

// decodeField reads one field that is no bit, into nothing if the struct does not have it.
func decodeField(recv string, x *Field) jen.Code {
	read := jen.Id("d").Dot(map[string]string{"table": "tableArg"}[x.Type])
	if x.Type != "table" {
		read = jen.Id("d").Dot(x.Type)
	}
	read = read.Call()
	switch {
	case x.Omit:
		return read.Comment("// " + x.Name + ", " + x.Doc[0])
	case x.GoType != "":
		return jen.Id(recv).Dot(x.Go).Op("=").Id(x.GoType).Call(read)
	default:
		return jen.Id(recv).Dot(x.Go).Op("=").Add(read)
	}
}

func decodeBits(g *bitGroup) []jen.Code {
	if len(public(g.fields)) == 0 {
		return []jen.Code{jen.Id("d").Dot("octet").Call().Comment("// " + g.fields[0].Name + ", " + g.fields[0].Doc[0])}
	}
	out := []jen.Code{jen.Id(g.name).Op(":=").Id("d").Dot("octet").Call()}
	for i, x := range g.fields {
		if !x.Omit {
			out = append(out, jen.Id("m").Dot(x.Go).Op("=").Id(g.name).Op("&").Parens(jen.Lit(1).Op("<<").Lit(i)).Op("!=").Lit(0))
		}
	}
	return out
}
