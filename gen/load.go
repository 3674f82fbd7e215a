package gen

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// specFile is a spec or an extension as it stands in its file.
type specFile struct {
	file string

	Name      string          `json:"name"`
	Major     int             `json:"major-version"`
	Minor     int             `json:"minor-version"`
	Revision  int             `json:"revision"`
	Port      int             `json:"port"`
	Extension json.RawMessage `json:"extension"`
	Domains   [][2]string     `json:"domains"`
	Constants []specConstant  `json:"constants"`
	Classes   []specClass     `json:"classes"`
}

type specConstant struct {
	Name  string `json:"name"`
	Value int64  `json:"value"`
	Class string `json:"class"`
}

type specClass struct {
	Name       string         `json:"name"`
	ID         int64          `json:"id"`
	Methods    []specMethod   `json:"methods"`
	Properties []specArgument `json:"properties"`
}

type specMethod struct {
	Name        string         `json:"name"`
	ID          int64          `json:"id"`
	Synchronous bool           `json:"synchronous"`
	Content     bool           `json:"content"`
	Arguments   []specArgument `json:"arguments"`
}

type specArgument struct {
	Name    string `json:"name"`
	Type    string `json:"type"`
	Domain  string `json:"domain"`
	Default any    `json:"default-value"`
}

// overlayFile is what a spec leaves out: who sends a method, what replies, Go names, docs, calls.
type overlayFile struct {
	file string

	Source    string                     `json:"source"`    // link for methods without their own; {class} and {method} are replaced
	Words     map[string]string          `json:"words"`     // how a word of a name is written in Go: id -> ID
	Receivers map[string]string          `json:"receivers"` // receiver types of calls -> the variable's name
	Arguments map[string]overlayField    `json:"arguments"` // for arguments of this name in all methods
	Constants map[string]overlayConstant `json:"constants"`
	Classes   map[string]overlayClass    `json:"classes"`
}

type overlayConstant struct {
	Go   string `json:"go"`
	Type string `json:"type"` // uint8, uint16, uint32, uint64, ReplyCode; empty for an untyped constant
	Doc  text   `json:"doc"`
}

type overlayClass struct {
	Go         string                   `json:"go"`
	Doc        text                     `json:"doc"`
	Properties *overlayProperties       `json:"properties"`
	Methods    map[string]overlayMethod `json:"methods"`
}

type overlayProperties struct {
	Go     string                  `json:"go"`     // the struct; <Class>Properties unless given
	Flags  string                  `json:"flags"`  // the type of Present; <Class>PropertyFlags unless given
	Prefix string                  `json:"prefix"` // of the flags' constants; <Class>Has unless given
	Doc    text                    `json:"doc"`
	Source string                  `json:"source"`
	Fields map[string]overlayField `json:"fields"`
}

type overlayMethod struct {
	Go      string                  `json:"go"`
	From    string                  `json:"from"`    // client, server or both
	Replies []string                `json:"replies"` // methods of the same class
	Doc     text                    `json:"doc"`
	Source  string                  `json:"source"`
	Fields  map[string]overlayField `json:"fields"`
	Call    *overlayCall            `json:"call"`
}

type overlayField struct {
	Go     string `json:"go"`
	Type   string `json:"type"`   // ReplyCode, for a short that holds one
	Omit   *bool  `json:"omit"`   // written as its default, skipped when read, and not in the struct
	NoWait *bool  `json:"noWait"` // the bit that asks for no reply
	Doc    text   `json:"doc"`
}

type overlayCall struct {
	Receiver string `json:"receiver"`
	Doc      text   `json:"doc"`
}

// text is prose: a string, or an array of them, each a paragraph.
type text []string

// UnmarshalJSON takes either form.
func (t *text) UnmarshalJSON(p []byte) error {
	var one string
	if json.Unmarshal(p, &one) == nil {
		*t = text{one}
		return nil
	}
	var many []string
	if err := json.Unmarshal(p, &many); err != nil {
		return errors.New("prose is a string or an array of strings")
	}
	*t = many
	return nil
}

func loadSpec(path string) (*specFile, error) {
	f := &specFile{file: path}
	return f, readJSON(path, f, false)
}

func loadOverlay(path string) (*overlayFile, error) {
	f := &overlayFile{file: path}
	return f, readJSON(path, f, true)
}

// readJSON reads one JSON value. Overlays are strict, since they are ours and a misspelt key would
// silently do nothing; specs carry keys that we have no use for, such as their copyright.
func readJSON(path string, to any, strict bool) error {
	p, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := checkKeys(p); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	d := json.NewDecoder(bytes.NewReader(p))
	if strict {
		d.DisallowUnknownFields()
	}
	if err := d.Decode(to); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// checkKeys refuses an object that has a key twice, of which encoding/json would keep the last.
func checkKeys(p []byte) error {
	d := json.NewDecoder(bytes.NewReader(p))
	if err := checkValue(d, ""); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("more than one JSON value")
	}
	return nil
}

func checkValue(d *json.Decoder, at string) error {
	t, err := d.Token()
	if err != nil {
		return err
	}
	open, ok := t.(json.Delim)
	if !ok {
		return nil
	}
	seen := map[string]bool{}
	for d.More() {
		in := at
		if open == '{' {
			k, err := d.Token()
			if err != nil {
				return err
			}
			key, _ := k.(string)
			in = at + "/" + key
			if seen[key] {
				return fmt.Errorf("%s is there twice", in)
			}
			seen[key] = true
		}
		if err := checkValue(d, in); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}
