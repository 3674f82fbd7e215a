package gen

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fault is an edit of one file of the invented protocol, and the error that it makes.
type fault struct {
	name     string
	file     string // spec.json, overlay.json or extension.json
	old, new string // the edit; the text is there once
	want     string // the error, after the name of the file
}

// An extension for the edits, and what describes it.
const (
	extensionText = `{ "extension": { "name": "more" },
		"domains": [["more", "shortstr"]],
		"constants": [{ "name": "MORE", "value": 7 }],
		"classes": [
			{ "name": "session", "id": 7, "methods": [{ "name": "more", "id": 100, "arguments": [] }] },
			{ "name": "extra", "id": 8, "methods": [{ "name": "more", "id": 1, "arguments": [{ "name": "id", "domain": "more" }] }] }
		] }`
	moreText = `{ "constants": { "MORE": { "doc": "is more." } },
		"classes": {
			"session": { "methods": { "more": { "from": "client", "doc": "is more." } } },
			"extra": { "doc": "is more.", "methods": { "more": { "from": "both", "doc": "is more." } } }
		} }`
)

var specFaults = []fault{
	{"a class twice", "spec.json", `"name": "letter", "id": 302`, `"name": "signal", "id": 302`, `class signal: defined twice`},
	{"a class id twice", "spec.json", `"name": "letter", "id": 302`, `"name": "letter", "id": 301`, `class letter: id 301 is the id of class signal`},
	{"a class id out of range", "spec.json", `"id": 302`, `"id": 65536`, `class letter: needs a name and an id of 1 to 65535; the id is 65536`},
	{"a method twice", "spec.json", `"name": "pong"`, `"name": "ping"`, `class session: method ping: defined twice`},
	{"a method id twice", "spec.json", `"name": "pong", "id": 10`, `"name": "pong", "id": 7`, `class session: method pong: id 7 is the id of method shout`},
	{"a method id of 0", "spec.json", `"name": "pong", "id": 10`, `"name": "pong"`, `class session: method pong: needs a name and an id of 1 to 65535; the id is 0`},
	{"an argument twice", "spec.json", `"name": "b-5"`, `"name": "b-4"`, `class session: method bits: b-4: defined twice`},
	{"an unknown domain", "spec.json", `"name": "why", "domain": "why"`, `"name": "why", "domain": "because"`, `class session: method bye: why: unknown domain "because"`},
	{"an unknown type", "spec.json", `"name": "between", "type": "octet"`, `"name": "between", "type": "nibble"`, `class session: method bits: between: unknown type "nibble"`},
	{"an unknown type of a property", "spec.json", `"name": "p-33", "type": "octet"`, `"name": "p-33", "type": "nibble"`, `class parcel: p-33: unknown type "nibble"`},
	{"an unknown type of a domain", "spec.json", `["when", "timestamp"]`, `["when", "then"]`, `domain when: unknown type "then"`},
	{"a domain twice", "spec.json", `["name", "shortstr"]`, `["flag", "bit"]`, `domain flag: defined twice`},
	{"a type and a domain", "spec.json", `"name": "between", "type": "octet"`, `"name": "between", "type": "octet", "domain": "flag"`, `class session: method bits: between: has both a type and a domain`},
	{"neither type nor domain", "spec.json", `"name": "between", "type": "octet"`, `"name": "between"`, `class session: method bits: between: has neither a type nor a domain`},
	{"a default too large", "spec.json", `"default-value": 17`, `"default-value": 256`, `class session: method old: old-octet: default 256 does not fit type octet`},
	{"a default of another type", "spec.json", `"default-value": "abc"`, `"default-value": 3`, `class session: method old: old-shortstr: default 3 does not fit type shortstr`},
	{"a bit as property", "spec.json", `"name": "p-33", "type": "octet"`, `"name": "p-33", "type": "bit"`, `class parcel: p-33: a property can't be a bit`},
	{"an unknown class of constant", "spec.json", `"value": 44, "class": "soft-error"`, `"value": 44, "class": "mild-error"`, `constant LOST-PARCEL: unknown class "mild-error" of constant`},
	{"a reply code twice", "spec.json", `"value": 506`, `"value": 505`, `constant RESOURCE-ERROR: reply code 505 is UNEXPECTED-FRAME already`},
	{"a constant too large", "spec.json", `"value": 206`, `"value": 256`, `constant FRAME-END: 256 does not fit uint8`},
	{"an undescribed method", "spec.json", `"name": "pong"`, `"name": "pang"`, `class session: method pang: no overlay describes it`},
	{"an undescribed argument", "spec.json", `"name": "between"`, `"name": "betwixt"`, `class session: method bits: betwixt: no overlay describes it`},
	{"an undescribed class", "spec.json", `"name": "letter"`, `"name": "missive"`, `class missive: no overlay describes it`},
	{"an undescribed constant", "spec.json", `"name": "WARP-LIMIT"`, `"name": "WEFT-LIMIT"`, `constant WEFT-LIMIT: no overlay describes it`},
	{"no spec", "spec.json", `"name": "WARP"`, `"nom": "WARP"`, `not a spec: it has no name or no classes`},
}

var overlayFaults = []fault{
	{"an entry for no class", "overlay.json", `"signal": {`, `"signals": {`, `class signals: overlay entry for what is not in the spec`},
	{"an entry for no method", "overlay.json", `"pong": {`, `"pang": {`, `class session: method pang: overlay entry for what is not in the spec`},
	{"an entry for no argument", "overlay.json", `"between": {`, `"betwixt": {`, `argument betwixt: overlay entry for what is not in the spec`},
	{"an entry for no argument of a method", "overlay.json", `"fields": { "kept": {`, `"fields": { "kept": { "doc": "is." }, "lost": {`, `class session: method old: argument lost: overlay entry for what is not in the spec`},
	{"an entry for no property", "overlay.json", `"fields": { "p-1": {`, `"fields": { "p-99": {`, `class parcel: property p-99: overlay entry for what is not in the spec`},
	{"an entry for no constant", "overlay.json", `"WARP-LIMIT": {`, `"WEFT-LIMIT": {`, `constant WEFT-LIMIT: overlay entry for what is not in the spec`},
	{"a word of no name", "overlay.json", `"words": { "id": "ID" }`, `"words": { "url": "URL" }`, `word url: overlay entry for what is not in the spec`},
	{"properties of a class without", "overlay.json", `"doc": "holds what begins and ends.",`, `"doc": "holds.", "properties": { "doc": "are none." },`, `class session: overlay describes properties, and the class has none`},
	{"a reply that is none", "overlay.json", `"replies": ["pong"]`, `"replies": ["bong"]`, `class session: method ping: reply "bong" is no method of the class`},
	{"a reply that goes the same way", "overlay.json", `"replies": ["pong"]`, `"replies": ["shout"]`, `class session: method ping: reply "shout" does not go the other way`},
	{"no reply", "overlay.json", `, "replies": ["pong"]`, ``, `class session: method ping: synchronous, and the overlay names no reply`},
	{"a reply too many", "overlay.json", `"shout": { "from": "client",`, `"shout": { "from": "client", "replies": ["pong"],`, `class session: method shout: has replies, and is not synchronous in the spec`},
	{"another direction", "overlay.json", `"pong": { "from": "server"`, `"pong": { "from": "above"`, `class session: method pong: "from" is "above" and has to be client, server or both`},
	{"no doc", "overlay.json", `"doc": "has many bits.",`, ``, `class session: method bits: has no doc`},
	{"a Go name twice", "overlay.json", `"go": "FarewellOk",`, `"go": "Farewell",`, `class session: method bye-ok: Go name Farewell is taken by method session.bye: give another in an overlay`},
	{"no Go name", "overlay.json", `"go": "Farewell",`, `"go": "farewell",`, `class session: method bye: "farewell" is no exported Go name`},
	{"a taken Go name of an argument", "overlay.json", `"between": {`, `"between": { "go": "DecodeFrom",`, `class session: method bits: between: Go name DecodeFrom is taken: give another in an overlay`},
	{"two arguments of a Go name", "overlay.json", `"between": {`, `"between": { "go": "Text",`, `class session: method bits: text: Go name Text is taken by between: give another in an overlay`},
	{"an unknown Go type", "overlay.json", `"between": {`, `"between": { "type": "Nibble",`, `class session: method bits: between: unknown Go type "Nibble"`},
	{"a reply code that is an octet", "overlay.json", `"between": {`, `"between": { "type": "ReplyCode",`, `class session: method bits: between: a field of type octet can't be a ReplyCode`},
	{"no-wait that is an octet", "overlay.json", `"between": {`, `"between": { "noWait": true,`, `class session: method bits: between: a field of type octet can't ask for no reply, only a bit can`},
	{"an unknown receiver", "overlay.json", `"call": { "receiver": "Session", "doc": "pings." }`, `"call": { "receiver": "Lesson", "doc": "pings." }`, `class session: method ping: call on unknown receiver "Lesson"`},
	{"a call with content", "overlay.json", `"send": { "from": "client", "doc": "sends one." }`, `"send": { "from": "client", "doc": "sends one.", "call": { "receiver": "Session", "doc": "sends." } }`, `class parcel: method send: a method with content can't have a generated call`},
	{"a call of two replies", "overlay.json", `"doc": "asks for one." }`, `"doc": "asks for one.", "call": { "receiver": "Session", "doc": "asks." } }`, `class parcel: method fetch: a call of a method with 2 replies has to be written by hand`},
	{"a call from the server", "overlay.json", `"doc": "answers a [SessionPing]." }`, `"doc": "answers.", "call": { "receiver": "Session", "doc": "answers." } }`, `class session: method pong: a call of a method that no client sends`},
	{"a misspelt key", "overlay.json", `"go": "Beacon"`, `"og": "Beacon"`, `json: unknown field "og"`},
	{"a key twice", "overlay.json", `"bits-ok": {`, `"bits": {`, `/classes/session/methods/bits is there twice`},
	{"no JSON", "overlay.json", `"words": {`, `"words" {`, `invalid character`},
	{"an entry in two overlays", "overlay.json", `"WARP-LIMIT": {`, `"MORE": { "doc": "is." }, "WARP-LIMIT": {`, `constant MORE: overlay entry is in `},
}

var extensionFaults = []fault{
	{"no extension", "extension.json", `"extension": {`, `"extent": {`, `not an extension: it has no key "extension"`},
	{"a method of the spec", "extension.json", `"name": "more", "id": 100`, `"name": "shout", "id": 100`, `class session: method shout: defined twice`},
	{"a method id of the spec", "extension.json", `"name": "more", "id": 100`, `"name": "more", "id": 7`, `class session: method more: id 7 is the id of method shout`},
	{"a class with another id", "extension.json", `"name": "session", "id": 7`, `"name": "session", "id": 70`, `class session: defined twice`},
	{"a class id of the spec", "extension.json", `"name": "extra", "id": 8`, `"name": "extra", "id": 300`, `class extra: id 300 is the id of class parcel`},
	{"a domain with another type", "extension.json", `["more", "shortstr"]`, `["flag", "shortstr"]`, `domain flag: defined twice`},
	{"a constant of the spec", "extension.json", `"name": "MORE"`, `"name": "WARP-LIMIT"`, `constant WARP-LIMIT: Go name WarpLimit is taken by constant WARP-LIMIT: give another in an overlay`},
	{"properties of a class that has them", "extension.json", `"name": "extra", "id": 8,`, `"name": "parcel", "id": 300, "properties": [{ "name": "p-34", "type": "octet" }],`, `class parcel: an extension can't add to the properties of a class that has them: their flags are numbered`},
}

func TestGenerate_Faults(t *testing.T) {
	for _, list := range [][]fault{specFaults, overlayFaults, extensionFaults} {
		for _, f := range list {
			t.Run(f.name, func(t *testing.T) { testFault(t, f) })
		}
	}
}

func testFault(t *testing.T, f fault) {
	dir := t.TempDir()
	files := map[string]string{"extension.json": extensionText, "more.json": moreText}
	for _, name := range []string{"spec.json", "overlay.json"} {
		p, err := os.ReadFile(filepath.Join("testdata/invented", name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = string(p)
	}
	if n := strings.Count(files[f.file], f.old); n != 1 {
		t.Fatalf("%q is %d times in %s", f.old, n, f.file)
	}
	files[f.file] = strings.Replace(files[f.file], f.old, f.new, 1)
	at := func(name string) string { return filepath.Join(dir, name) }
	for name, text := range files {
		if err := os.WriteFile(at(name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out, err := Generate(Input{
		Spec: at("spec.json"), Extensions: []string{at("extension.json")},
		Overlays: []string{at("overlay.json"), at("more.json")}, Package: "warp",
	})
	if out.Spec != nil || out.Calls != nil {
		t.Error("code came with the error")
	}
	file := f.file
	if strings.Contains(f.want, "overlay entry is in ") {
		file = "more.json" // the second is the one to blame
	}
	want := at(file) + ": " + f.want
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error\n%v\nwant one with\n%s", err, want)
	}
}

func TestGenerate_FaultsAreTyped(t *testing.T) {
	in := inventedInput()
	in.Overlays = nil
	_, err := Generate(in)
	var e *Error
	if !errors.As(err, &e) || e.File != in.Spec {
		t.Fatalf("error %v", err)
	}
	all, ok := err.(interface{ Unwrap() []error })
	if !ok || len(all.Unwrap()) < 100 {
		t.Errorf("not all of what is missing is reported: %v", err)
	}
}
