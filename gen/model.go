package gen

// Model is a spec with its extensions and overlays, merged and checked.
type Model struct {
	Package string
	Files   []string // base names of the files it came from

	Name                         string
	Major, Minor, Revision, Port int

	Constants []*Constant
	Classes   []*Class // by id
}

// Constant is a named number of the protocol.
type Constant struct {
	Name, Go string
	Value    int64
	Type     string // a Go type, or empty for an untyped constant
	Class    string // soft-error, hard-error, or empty
	Doc      text
}

// Class is a group of methods, and the properties of the content that some of them carry.
type Class struct {
	Name, Go   string
	ID         uint16
	Doc        text
	Methods    []*Method // by id
	Properties *PropertySet
}

// PropertySet is the property list of a class's content header.
type PropertySet struct {
	Class             *Class
	Go, Flags, Prefix string
	Doc               text
	Source            string
	Fields            []*Field // in wire order
}

// Method is a method with its arguments.
type Method struct {
	Class                  *Class
	Name, Go               string
	ID                     uint16
	Sync, Content          bool
	FromClient, FromServer bool
	Replies                []*Method
	Reply                  bool     // it is one of another's
	Fields                 []*Field // in wire order
	Doc                    text
	Source                 string
	Call                   *TypedCall
}

// FullName is the method's name with its class: queue.declare.
func (m *Method) FullName() string { return m.Class.Name + "." + m.Name }

// Const is the name of the method's MethodID constant.
func (m *Method) Const() string { return "Method" + m.Go }

// Public lists the fields that the struct has.
func (m *Method) Public() []*Field { return public(m.Fields) }

// NoWait is the field that asks for no reply, or nil.
func (m *Method) NoWait() *Field {
	for _, f := range m.Fields {
		if f.NoWait {
			return f
		}
	}
	return nil
}

// Field is an argument of a method, or a property.
type Field struct {
	Name, Go string
	Type     string // one of the spec's elementary types
	GoType   string // the name of a type in the target package, or empty for the elementary type's own
	Omit     bool
	NoWait   bool
	Default  any // bool, int64, string; nil for none, and for an empty table
	Doc      text
}

// TypedCall is a typed call to generate for a method.
type TypedCall struct {
	Receiver, Var string
	Doc           text
}

func public(fields []*Field) []*Field {
	var out []*Field
	for _, f := range fields {
		if !f.Omit {
			out = append(out, f)
		}
	}
	return out
}

const replyCode = "ReplyCode" // the Go type of constants that are errors

// elementary lists the schema's types, and the largest default that those which are numbers can hold.
var elementary = map[string]uint64{
	"bit": 0, "octet": 1<<8 - 1, "short": 1<<16 - 1, "long": 1<<32 - 1, "longlong": 1<<63 - 1,
	"shortstr": 0, "longstr": 0, "table": 0, "timestamp": 1<<63 - 1,
}
