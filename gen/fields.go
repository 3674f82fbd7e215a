package gen

import (
	"math"
	"math/big"
	"slices"
)

// taken are the names that every method and property struct has for something else.
var taken = []string{"MethodID", "AppendTo", "DecodeFrom", "Present"}

// fields resolves the arguments of a method or the properties of a class.
func (r *resolver) fields(p place, args []specArgument, over func(name string) (overlayField, string)) []*Field {
	var out []*Field
	for _, a := range args {
		p.field = a.Name
		f := &Field{Name: a.Name, Type: r.typeOf(p, a)}
		o, file := over(a.Name)
		f.Go, f.GoType, f.Doc = o.Go, o.Type, o.Doc
		f.Omit = o.Omit != nil && *o.Omit
		f.NoWait = o.NoWait != nil && *o.NoWait
		if f.Go == "" {
			f.Go = r.over.goName(a.Name)
		}
		if f.Type == "" {
			continue
		}
		f.Default = r.defaultOf(p, f.Type, a.Default)
		at := p // what an overlay says is the overlay's fault
		if file != "" {
			at.file = file
		}
		r.checkField(p, at, f)
		for _, old := range out {
			if old.Name == f.Name {
				r.add(p, "defined twice")
			} else if old.Go == f.Go && !old.Omit && !f.Omit {
				r.add(at, "Go name %s is taken by %s: give another in an overlay", f.Go, old.Name)
			}
		}
		out = append(out, f)
	}
	return out
}

func (r *resolver) checkField(p, at place, f *Field) {
	switch {
	case f.Name == "":
		r.add(p, "an argument has no name")
	case len(f.Doc) == 0:
		r.add(p, "no overlay describes it")
	case !exported(f.Go):
		r.add(at, "%q is no exported Go name", f.Go)
	case slices.Contains(taken, f.Go) && !f.Omit:
		r.add(at, "Go name %s is taken: give another in an overlay", f.Go)
	case f.GoType != "" && f.GoType != replyCode:
		r.add(at, "unknown Go type %q", f.GoType)
	case f.GoType == replyCode && f.Type != "short":
		r.add(at, "a field of type %s can't be a %s", f.Type, replyCode)
	case f.NoWait && f.Type != "bit":
		r.add(at, "a field of type %s can't ask for no reply, only a bit can", f.Type)
	}
}

func (r *resolver) typeOf(p place, a specArgument) string {
	switch {
	case a.Type != "" && a.Domain != "":
		r.add(p, "has both a type and a domain")
	case a.Type != "":
		if _, ok := elementary[a.Type]; ok {
			return a.Type
		}
		r.add(p, "unknown type %q", a.Type)
	case a.Domain != "":
		if t, ok := r.domains[a.Domain]; ok {
			return t
		}
		r.add(p, "unknown domain %q", a.Domain)
	default:
		r.add(p, "has neither a type nor a domain")
	}
	return ""
}

// defaultOf checks that a default fits its type. JSON's numbers arrive as float64.
func (r *resolver) defaultOf(p place, typ string, v any) any {
	switch x := v.(type) {
	case nil:
		return nil
	case bool:
		if typ == "bit" {
			return x
		}
	case string:
		if typ == "shortstr" && len(x) <= math.MaxUint8 || typ == "longstr" {
			return x
		}
	case float64:
		limit := new(big.Float).SetUint64(elementary[typ])
		if elementary[typ] > 0 && x >= 0 && x == math.Trunc(x) && x < 1<<63 && big.NewFloat(x).Cmp(limit) <= 0 {
			return int64(x)
		}
	case map[string]any:
		if typ == "table" && len(x) == 0 {
			return nil
		}
	}
	r.add(p, "default %v does not fit type %s", v, typ)
	return nil
}

// addProperties resolves the property list of a class that carries content.
func (r *resolver) addProperties(f *specFile, c *Class, args []specArgument) {
	p := place{file: f.file, class: c.Name}
	if c.Properties != nil {
		if len(args) > 0 {
			r.add(p, "an extension can't add to the properties of a class that has them: their flags are numbered")
		}
		return
	}
	o := r.over.properties(c.Name)
	s := &PropertySet{Class: c, Go: o.Go, Flags: o.Flags, Prefix: o.Prefix, Doc: o.Doc, Source: o.Source}
	if s.Go == "" {
		s.Go = c.Go + "Properties"
	}
	if s.Flags == "" {
		s.Flags = c.Go + "PropertyFlags"
	}
	if s.Prefix == "" {
		s.Prefix = c.Go + "Has"
	}
	if len(s.Doc) == 0 {
		r.add(p, "no overlay describes its properties")
	}
	c.Properties = s
	r.claim(p, s.Go, "the properties of class "+c.Name)
	r.claim(p, s.Flags, "the property flags of class "+c.Name)
	s.Fields = r.fields(p, args, func(name string) (overlayField, string) { return r.over.property(c.Name, name) })
	for _, f := range s.Fields {
		p.field = f.Name
		if f.Type == "bit" {
			// The spec lets a bit stand in its flag alone; no protocol of this family has one.
			r.add(p, "a property can't be a bit")
		}
		if !f.Omit {
			r.claim(p, s.Prefix+f.Go, "the flag of property "+f.Name)
		}
	}
	if len(args) > maxProperties {
		r.add(p, "has %d properties, and %d is the most that are supported", len(args), maxProperties)
	}
}

// maxProperties fit a uint64 of flags: 15 to each 16-bit word, whose last bit says whether another follows.
const maxProperties = 60
