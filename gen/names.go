package gen

import (
	"go/token"
	"strings"
	"unicode"
)

// goName turns a spec's name into an exported Go name: each word with a capital, or as word says.
func goName(word func(string) string, parts ...string) string {
	var b strings.Builder
	for _, p := range parts {
		for _, w := range strings.FieldsFunc(strings.ToLower(p), notWord) {
			if s := word(w); s != "" {
				b.WriteString(s)
				continue
			}
			b.WriteString(strings.ToUpper(w[:1]) + w[1:])
		}
	}
	return b.String()
}

func notWord(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }

// exported reports whether name can stand as an exported Go identifier.
func exported(name string) bool { return token.IsIdentifier(name) && token.IsExported(name) }

// wireName is the name of a reply code as the protocol writes it in prose: NOT-FOUND is NOT_FOUND.
func wireName(name string) string { return strings.ReplaceAll(name, "-", "_") }
