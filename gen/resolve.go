package gen

import (
	"cmp"
	"path/filepath"
	"slices"
	"strings"
)

// Load reads and checks the files of in. See [Generate] for its errors.
func Load(in Input) (*Model, error) {
	r := &resolver{domains: map[string]string{}, goNames: map[string]string{}}
	for i, path := range append([]string{in.Spec}, in.Extensions...) {
		f, err := loadSpec(path)
		if err != nil {
			return nil, err
		}
		if i == 0 && f.Extension != nil {
			r.add(place{file: path}, "an extension stands where the spec should")
		} else if i > 0 && f.Extension == nil {
			r.add(place{file: path}, "not an extension: it has no key \"extension\"")
		}
		r.specs = append(r.specs, f)
	}
	for _, path := range in.Overlays {
		f, err := loadOverlay(path)
		if err != nil {
			return nil, err
		}
		r.overlays = append(r.overlays, f)
	}
	r.model = &Model{Package: in.Package}
	r.resolve()
	if err := r.err(); err != nil {
		return nil, err
	}
	return r.model, nil
}

// resolver merges the files into the model. It goes on after a fault, to report them all.
type resolver struct {
	faults
	specs    []*specFile
	overlays []*overlayFile
	over     *overlay
	model    *Model
	domains  map[string]string // name -> elementary type
	goNames  map[string]string // Go name at package level -> what has it
}

func (r *resolver) resolve() {
	r.over = mergeOverlays(&r.faults, r.overlays)
	m, s := r.model, r.specs[0]
	m.Name, m.Major, m.Minor, m.Revision, m.Port = s.Name, s.Major, s.Minor, s.Revision, s.Port
	if s.Name == "" || len(s.Classes) == 0 {
		r.add(place{file: s.file}, "not a spec: it has no name or no classes")
	}
	for _, f := range r.specs {
		m.Files = append(m.Files, filepath.Base(f.file))
		r.mergeDomains(f)
	}
	for _, f := range r.overlays {
		m.Files = append(m.Files, filepath.Base(f.file))
	}
	for _, f := range r.specs {
		r.mergeConstants(f)
	}
	for _, f := range r.specs {
		for i := range f.Classes {
			r.mergeClass(f, &f.Classes[i])
		}
	}
	r.linkReplies()
	r.over.reportUnused(&r.faults)
	slices.SortStableFunc(m.Constants, func(a, b *Constant) int { return cmp.Compare(a.Value, b.Value) })
	slices.SortFunc(m.Classes, func(a, b *Class) int { return int(a.ID) - int(b.ID) })
	for _, c := range m.Classes {
		slices.SortFunc(c.Methods, func(a, b *Method) int { return int(a.ID) - int(b.ID) })
	}
}

func (r *resolver) mergeDomains(f *specFile) {
	for _, d := range f.Domains {
		p := place{file: f.file, field: "domain " + d[0]}
		if _, ok := elementary[d[1]]; !ok {
			r.add(p, "unknown type %q", d[1])
			continue
		}
		if old, ok := r.domains[d[0]]; ok && (old != d[1] || f == r.specs[0]) {
			r.add(p, "defined twice")
			continue
		}
		r.domains[d[0]] = d[1]
	}
}

func (r *resolver) mergeConstants(f *specFile) {
	codes := map[int64]string{}
	for _, c := range r.model.Constants {
		if c.Type == replyCode {
			codes[c.Value] = c.Name
		}
	}
	for _, s := range f.Constants {
		p := place{file: f.file, field: "constant " + s.Name}
		o := r.over.constant(s.Name)
		c := &Constant{Name: s.Name, Go: o.Go, Value: s.Value, Class: s.Class, Type: o.Type, Doc: o.Doc}
		if c.Go == "" {
			c.Go = r.over.goName(s.Name)
		}
		switch s.Class {
		case "":
		case "soft-error", "hard-error":
			c.Type = replyCode
		default:
			r.add(p, "unknown class %q of constant", s.Class)
		}
		if len(c.Doc) == 0 {
			r.add(p, "no overlay describes it")
		}
		if limit, ok := constantTypes[c.Type]; !ok {
			r.add(p, "unknown Go type %q for a constant", c.Type)
		} else if s.Value < 0 || uint64(s.Value) > limit {
			r.add(p, "%d does not fit %s", s.Value, c.Type)
		}
		if c.Type == replyCode {
			if old, ok := codes[s.Value]; ok {
				r.add(p, "reply code %d is %s already", s.Value, old)
			}
			codes[s.Value] = s.Name
		}
		r.claim(p, c.Go, "constant "+s.Name)
		r.model.Constants = append(r.model.Constants, c)
	}
}

// constantTypes are the Go types that an overlay may give a constant, with their largest values.
var constantTypes = map[string]uint64{
	"": 1<<63 - 1, "uint8": 1<<8 - 1, "uint16": 1<<16 - 1, "uint32": 1<<32 - 1, "uint64": 1<<63 - 1,
	replyCode: 1<<16 - 1,
}

// mergeClass adds a class, or the methods and properties that an extension gives to an old one.
func (r *resolver) mergeClass(f *specFile, s *specClass) {
	p := place{file: f.file, class: s.Name}
	var c *Class
	for _, old := range r.model.Classes {
		switch {
		case old.Name == s.Name && int64(old.ID) == s.ID && f != r.specs[0]:
			c = old
		case old.Name == s.Name:
			r.add(p, "defined twice")
			return
		case int64(old.ID) == s.ID:
			r.add(p, "id %d is the id of class %s", s.ID, old.Name)
			return
		}
	}
	if c == nil {
		if s.Name == "" || s.ID < 1 || s.ID > 1<<16-1 {
			r.add(p, "needs a name and an id of 1 to 65535; the id is %d", s.ID)
			return
		}
		o := r.over.class(s.Name)
		c = &Class{Name: s.Name, Go: o.Go, ID: uint16(s.ID), Doc: o.Doc}
		if c.Go == "" {
			c.Go = r.over.goName(s.Name)
		}
		if len(c.Doc) == 0 {
			r.add(p, "no overlay describes it")
		}
		r.claim(p, "Class"+c.Go, "class "+s.Name)
		r.model.Classes = append(r.model.Classes, c)
	}
	content := len(s.Properties) > 0
	for i := range s.Methods {
		r.addMethod(f, c, &s.Methods[i])
		content = content || s.Methods[i].Content
	}
	if content {
		r.addProperties(f, c, s.Properties)
	}
}

func (r *resolver) addMethod(f *specFile, c *Class, s *specMethod) {
	p := place{file: f.file, class: c.Name, method: s.Name}
	if s.Name == "" || s.ID < 1 || s.ID > 1<<16-1 {
		r.add(p, "needs a name and an id of 1 to 65535; the id is %d", s.ID)
		return
	}
	for _, old := range c.Methods {
		if old.Name == s.Name {
			r.add(p, "defined twice")
			return
		}
		if int64(old.ID) == s.ID {
			r.add(p, "id %d is the id of method %s", s.ID, old.Name)
			return
		}
	}
	m := &Method{Class: c, Name: s.Name, ID: uint16(s.ID), Sync: s.Synchronous, Content: s.Content}
	c.Methods = append(c.Methods, m)
	o, ok := r.over.method(c.Name, s.Name)
	if !ok {
		r.add(p, "no overlay describes it")
	}
	m.Go, m.Doc = o.Go, o.Doc
	if m.Go == "" {
		m.Go = c.Go + r.over.goName(s.Name)
	}
	m.Source = o.Source
	if m.Source == "" {
		m.Source = strings.NewReplacer("{class}", c.Name, "{method}", s.Name).Replace(r.over.source[r.over.where(c.Name, s.Name)])
	}
	m.FromClient = o.From == "client" || o.From == "both"
	m.FromServer = o.From == "server" || o.From == "both"
	at := place{file: r.over.where(c.Name, s.Name), class: c.Name, method: s.Name}
	if ok {
		if !m.FromClient && !m.FromServer {
			r.add(at, "\"from\" is %q and has to be client, server or both", o.From)
		}
		if len(m.Doc) == 0 {
			r.add(at, "has no doc")
		}
	}
	if o.Go != "" {
		r.claim(at, m.Go, "method "+m.FullName())
	} else {
		r.claim(p, m.Go, "method "+m.FullName())
	}
	m.Fields = r.fields(p, s.Arguments, func(name string) (overlayField, string) { return r.over.argument(c.Name, s.Name, name) })
	if o.Call != nil {
		r.addCall(m, o.Call)
	}
}

func (r *resolver) addCall(m *Method, o *overlayCall) {
	p := place{file: r.over.where(m.Class.Name, m.Name), class: m.Class.Name, method: m.Name}
	v, ok := r.over.receivers[o.Receiver]
	switch {
	case !ok:
		r.add(p, "call on unknown receiver %q", o.Receiver)
	case m.Content:
		r.add(p, "a method with content can't have a generated call")
	case !m.FromClient:
		r.add(p, "a call of a method that no client sends")
	case len(o.Doc) == 0:
		r.add(p, "call has no doc")
	}
	m.Call = &TypedCall{Receiver: o.Receiver, Var: v, Doc: o.Doc}
}

// linkReplies turns the names of replies into methods, once all of them are known.
func (r *resolver) linkReplies() {
	for _, c := range r.model.Classes {
		for _, m := range c.Methods {
			r.linkMethod(c, m)
		}
	}
}

func (r *resolver) linkMethod(c *Class, m *Method) {
	o, ok := r.over.method(c.Name, m.Name)
	if !ok {
		return
	}
	p := place{file: r.over.where(c.Name, m.Name), class: c.Name, method: m.Name}
	for _, name := range o.Replies {
		i := slices.IndexFunc(c.Methods, func(x *Method) bool { return x.Name == name })
		if i < 0 {
			r.add(p, "reply %q is no method of the class", name)
			continue
		}
		reply := c.Methods[i]
		if m.FromClient && !reply.FromServer || m.FromServer && !reply.FromClient {
			r.add(p, "reply %q does not go the other way", name)
		}
		m.Replies = append(m.Replies, reply)
		reply.Reply = true
	}
	switch {
	case m.Sync && len(o.Replies) == 0:
		r.add(p, "synchronous, and the overlay names no reply")
	case !m.Sync && len(o.Replies) > 0:
		r.add(p, "has replies, and is not synchronous in the spec")
	case m.Call != nil && len(m.Replies) > 1:
		r.add(p, "a call of a method with %d replies has to be written by hand", len(m.Replies))
	}
}

// claim takes a Go name at package level for what, or reports that it is taken.
func (r *resolver) claim(p place, name, what string) {
	if !exported(name) {
		r.add(p, "%q is no exported Go name", name)
		return
	}
	if old, ok := r.goNames[name]; ok {
		r.add(p, "Go name %s is taken by %s: give another in an overlay", name, old)
		return
	}
	r.goNames[name] = what
}
