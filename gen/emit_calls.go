package gen

import (
	"strings"

	"github.com/dave/jennifer/jen"
)

// emitCall writes the typed call of a method: its struct goes out, its reply comes back.
func emitCall(f *jen.File, m *Method) {
	f.Add(callDoc(m))
	params := []jen.Code{jen.Id("ctx").Qual("context", "Context")}
	arg := jen.Op("&").Id("m")
	if len(m.Public()) == 0 {
		arg = jen.Op("&").Id(m.Go).Values()
	} else {
		params = append(params, jen.Id("m").Id(m.Go))
	}
	fn := f.Func().Params(jen.Id(m.Call.Var).Op("*").Id(m.Call.Receiver)).Id(m.Go).Params(params...)

	noWait := jen.False()
	if x := m.NoWait(); x != nil && !x.Omit {
		noWait = jen.Id("m").Dot(x.Go)
	}
	call := func(wait, reply *jen.Statement) *jen.Statement {
		return jen.Id(m.Call.Var).Dot("call").Call(jen.Id("ctx"), arg, wait, reply)
	}
	if len(m.Replies) == 0 {
		fn.Error().Block(jen.Return(call(jen.True(), jen.Nil())))
		return
	}
	reply := m.Replies[0]
	ok := jen.Var().Id("ok").Id(reply.Go)
	if len(reply.Public()) == 0 {
		fn.Error().Block(ok, jen.Return(call(noWait, jen.Op("&").Id("ok"))))
		return
	}
	fn.Params(jen.Id(reply.Go), jen.Error()).Block(
		ok,
		jen.Err().Op(":=").Add(call(noWait, jen.Op("&").Id("ok"))),
		jen.Return(jen.Id("ok"), jen.Err()),
	)
}

func callDoc(m *Method) *jen.Statement {
	var what []string
	if len(m.Replies) == 0 {
		what = append(what, "It returns once the method is queued for sending; there is no reply.")
	} else {
		what = append(what, "It waits for the broker's answer until ctx ends: then whether the broker acted is unknown, "+
			"and the "+strings.ToLower(m.Call.Receiver)+" stays usable.")
		if x := m.NoWait(); x != nil && !x.Omit {
			s := "With " + x.Go + " set it returns once the method is queued for sending"
			if len(m.Replies[0].Public()) > 0 {
				s += ", and the reply is the zero value"
			}
			what = append(what, s+".")
		}
	}
	what = append(what, "It is safe for concurrent use.")
	return doc(m.Go, m.Call.Doc, strings.Join(what, " "),
		"Errors: [*Error] with the broker's reply code when it refuses, which closes the "+strings.ToLower(m.Call.Receiver)+
			"; one that wraps [ErrClosed] when that is closed already; [*EncodeError] for an argument that has no wire form; "+
			"one that wraps ctx's own.",
		source(m.Source))
}
