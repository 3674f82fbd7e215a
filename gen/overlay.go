package gen

import (
	"maps"
	"slices"
)

// overlay is all overlay files as one. It remembers which entries were asked for, so that those which
// name nothing in the spec can be reported.
type overlay struct {
	words     map[string]string
	receivers map[string]string
	arguments map[string]overlayField
	constants map[string]overlayConstant
	classes   map[string]overlayClass
	methods   map[[2]string]overlayMethod

	source map[string]string // the link for methods that a file describes, by file

	from map[entry]string // the file of an entry
	used map[entry]bool
}

// entry is what an overlay can describe: kind, and up to three names that lead to it.
type entry struct{ kind, class, method, name string }

func (o *overlay) claim(f *faults, file string, e entry) {
	if old, ok := o.from[e]; ok {
		f.add(e.place(file), "overlay entry is in %s already", old)
	}
	o.from[e] = file
}

func (e entry) place(file string) place {
	p := place{file: file, class: e.class, method: e.method}
	if e.name != "" {
		p.field = e.kind + " " + e.name
	}
	return p
}

func mergeOverlays(f *faults, files []*overlayFile) *overlay {
	o := &overlay{
		words: map[string]string{}, receivers: map[string]string{}, arguments: map[string]overlayField{},
		constants: map[string]overlayConstant{}, classes: map[string]overlayClass{},
		methods: map[[2]string]overlayMethod{}, source: map[string]string{}, from: map[entry]string{}, used: map[entry]bool{},
	}
	for _, file := range files {
		o.mergeGeneral(f, file)
		for _, name := range sorted(file.Classes) {
			o.mergeClass(f, file.file, name, file.Classes[name])
		}
	}
	return o
}

func (o *overlay) mergeGeneral(f *faults, file *overlayFile) {
	o.source[file.file] = file.Source
	maps.Copy(o.receivers, file.Receivers)
	for _, k := range sorted(file.Words) {
		o.claim(f, file.file, entry{kind: "word", name: k})
		o.words[k] = file.Words[k]
	}
	for _, k := range sorted(file.Arguments) {
		o.claim(f, file.file, entry{kind: "argument", name: k})
		o.arguments[k] = file.Arguments[k]
	}
	for _, k := range sorted(file.Constants) {
		o.claim(f, file.file, entry{kind: "constant", name: k})
		o.constants[k] = file.Constants[k]
	}
}

func (o *overlay) mergeClass(f *faults, file, name string, c overlayClass) {
	old, ok := o.classes[name]
	switch {
	case !ok:
		o.from[entry{kind: "class", class: name}] = file
	case len(c.Doc) > 0 && len(old.Doc) > 0, c.Properties != nil && old.Properties != nil, c.Go != "" && old.Go != "":
		f.add(place{file: file, class: name}, "described in %s already", o.from[entry{kind: "class", class: name}])
	}
	if c.Doc != nil {
		old.Doc = c.Doc
	}
	if c.Go != "" {
		old.Go = c.Go
	}
	if c.Properties != nil {
		old.Properties = c.Properties
		for _, k := range sorted(c.Properties.Fields) {
			o.claim(f, file, entry{kind: "property", class: name, name: k})
		}
	}
	o.classes[name] = old
	for _, k := range sorted(c.Methods) {
		o.claim(f, file, entry{kind: "method", class: name, method: k})
		o.methods[[2]string{name, k}] = c.Methods[k]
		for _, a := range sorted(c.Methods[k].Fields) {
			o.claim(f, file, entry{kind: "argument", class: name, method: k, name: a})
		}
	}
}

func (o *overlay) constant(name string) overlayConstant {
	o.used[entry{kind: "constant", name: name}] = true
	return o.constants[name]
}

func (o *overlay) class(name string) overlayClass {
	o.used[entry{kind: "class", class: name}] = true
	return o.classes[name]
}

func (o *overlay) method(class, name string) (overlayMethod, bool) {
	o.used[entry{kind: "method", class: class, method: name}] = true
	m, ok := o.methods[[2]string{class, name}]
	return m, ok
}

// goName is the Go name of something by its names in the spec.
func (o *overlay) goName(parts ...string) string {
	return goName(func(word string) string {
		o.used[entry{kind: "word", name: word}] = true
		return o.words[word]
	}, parts...)
}

// where is the overlay file that describes a method.
func (o *overlay) where(class, method string) string {
	return o.from[entry{kind: "method", class: class, method: method}]
}

// argument is what the method's own entry says of an argument, over what is said of all of that name,
// and the file that says so.
func (o *overlay) argument(class, method, name string) (overlayField, string) {
	own := entry{kind: "argument", class: class, method: method, name: name}
	return o.field(own, o.methods[[2]string{class, method}].Fields[name])
}

func (o *overlay) field(e entry, own overlayField) (overlayField, string) {
	all := entry{kind: "argument", name: e.name}
	o.used[all], o.used[e] = true, true
	file := o.from[e]
	if file == "" {
		file = o.from[all]
	}
	return overField(o.arguments[e.name], own), file
}

func (o *overlay) properties(class string) overlayProperties {
	if p := o.classes[class].Properties; p != nil {
		o.used[entry{kind: "properties", class: class}] = true
		return *p
	}
	return overlayProperties{}
}

func (o *overlay) property(class, name string) (overlayField, string) {
	var own overlayField
	if p := o.classes[class].Properties; p != nil {
		own = p.Fields[name]
	}
	return o.field(entry{kind: "property", class: class, name: name}, own)
}

func overField(f, own overlayField) overlayField {
	if own.Go != "" {
		f.Go = own.Go
	}
	if own.Type != "" {
		f.Type = own.Type
	}
	if own.Omit != nil {
		f.Omit = own.Omit
	}
	if own.NoWait != nil {
		f.NoWait = own.NoWait
	}
	if own.Doc != nil {
		f.Doc = own.Doc
	}
	return f
}

// reportUnused reports the entries that name nothing in the spec.
func (o *overlay) reportUnused(f *faults) {
	var list []entry
	for e := range o.from {
		if !o.used[e] {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b entry) int {
		return slices.Compare([]string{a.class, a.method, a.kind, a.name}, []string{b.class, b.method, b.kind, b.name})
	})
	for _, e := range list {
		f.add(e.place(o.from[e]), "overlay entry for what is not in the spec")
	}
	for _, name := range sorted(o.classes) {
		if o.classes[name].Properties != nil && !o.used[entry{kind: "properties", class: name}] {
			f.add(place{file: o.from[entry{kind: "class", class: name}], class: name},
				"overlay describes properties, and the class has none")
		}
	}
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
