package amqptest_test

import (
	"fmt"
	"strconv"
	"strings"
)

// A scanner reads the words and values of one script line. Faults in a script
// panic with a scriptError, which the runner reports with the line's number.
type scanner struct{ s string }

type scriptError string

func (sc *scanner) failf(format string, args ...any) {
	panic(scriptError(fmt.Sprintf(format, args...) + " at " + strconv.Quote(sc.s)))
}

func (sc *scanner) space() { sc.s = strings.TrimLeft(sc.s, " \t") }

func (sc *scanner) peek() byte {
	if sc.s == "" {
		return 0
	}
	return sc.s[0]
}

func (sc *scanner) eat(c byte) bool {
	if sc.peek() != c {
		return false
	}
	sc.s = sc.s[1:]
	return true
}

func (sc *scanner) want(c byte) {
	if !sc.eat(c) {
		sc.failf("want %q", c)
	}
}

// word reads up to a space or one of the stop characters.
func (sc *scanner) word(stops string) string {
	i := strings.IndexAny(sc.s, stops+" \t")
	if i < 0 {
		i = len(sc.s)
	}
	w := sc.s[:i]
	sc.s = sc.s[i:]
	return w
}

func (sc *scanner) quoted() string {
	q, err := strconv.QuotedPrefix(sc.s)
	if err != nil {
		sc.failf("bad string")
	}
	sc.s = sc.s[len(q):]
	s, _ := strconv.Unquote(q)
	return s
}

// text reads a string: quoted, repeat("x",n), or a bare word.
func (sc *scanner) text(stops string) string {
	if sc.peek() == '"' {
		return sc.quoted()
	}
	if rest, ok := strings.CutPrefix(sc.s, "repeat("); ok {
		sc.s = rest
		s := sc.quoted()
		sc.want(',')
		n := sc.int()
		sc.want(')')
		return strings.Repeat(s, int(n))
	}
	return sc.word(stops)
}

func (sc *scanner) int() int64 {
	i := 0
	for i < len(sc.s) && (sc.s[i] == '-' || sc.s[i] >= '0' && sc.s[i] <= '9') {
		i++
	}
	n, err := strconv.ParseInt(sc.s[:i], 10, 64)
	if err != nil {
		u, err := strconv.ParseUint(sc.s[:i], 10, 64)
		if err != nil {
			sc.failf("bad number")
		}
		n = int64(u)
	}
	sc.s = sc.s[i:]
	return n
}

func (sc *scanner) table() tableValue {
	t := tableValue{}
	sc.want('{')
	for !sc.eat('}') {
		k := sc.text(":,{}")
		sc.want(':')
		t = append(t, tableField{k, sc.value()})
		if !sc.eat(',') && sc.peek() != '}' {
			sc.failf("want , or }")
		}
	}
	return t
}

// value reads one table value. A bare number is an int32, a bare word a
// string; other types say theirs: l(5), T(0), f(1.5), D(2,314), x("ab").
func (sc *scanner) value() tagged {
	switch c := sc.peek(); {
	case c == '{':
		return tagged{'F', sc.table()}
	case c == '[':
		sc.want('[')
		list := []tagged{}
		for !sc.eat(']') {
			list = append(list, sc.value())
			sc.eat(',')
		}
		return tagged{'A', list}
	case c == '"' || strings.HasPrefix(sc.s, "repeat("):
		return tagged{'S', sc.text("")}
	case c == '-' || c >= '0' && c <= '9':
		return tagged{'I', sc.int()}
	case len(sc.s) > 1 && sc.s[1] == '(':
		return sc.typed()
	}
	switch w := sc.word(",}]"); w {
	case "true", "false":
		return tagged{'t', w == "true"}
	case "void":
		return tagged{'V', nil}
	default:
		return tagged{'S', w}
	}
}

func (sc *scanner) typed() tagged {
	x := tagged{tag: sc.s[0]}
	sc.s = sc.s[2:]
	switch x.tag {
	case 'f', 'd':
		v, err := strconv.ParseFloat(sc.word(")"), 64)
		if err != nil {
			sc.failf("bad float")
		}
		x.v = v
	case 'D':
		scale := sc.int()
		sc.want(',')
		x.v = decimal{uint8(scale), int32(sc.int())}
	case 'x', 'S':
		x.v = sc.quoted()
	default:
		if intWidth[x.tag] == 0 {
			sc.failf("unknown type %q", x.tag)
		}
		x.v = sc.int()
	}
	sc.want(')')
	return x
}
