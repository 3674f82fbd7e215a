package amqp

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"time"
)

// Credentials are a user name and a password, or a token in the password's
// place. Printing them, by whatever verb or through slog or encoding/json,
// never shows the password.
//
// That holds for a Credentials and for an exported field of that type. Package
// fmt can't be kept from printing what stands by value in an unexported field:
// keep a pointer there.
type Credentials struct {
	Username string
	Password string `json:"-"`

	// Expires is when a token in the password's place is good no more. A Client
	// then asks for the next one ahead of it, and tells the broker. Zero: never.
	Expires time.Time
}

// StaticCredentials is a Config.Credentials that always gives the same ones.
func StaticCredentials(username, password string) func(context.Context) (Credentials, error) {
	c := Credentials{Username: username, Password: password}
	return func(context.Context) (Credentials, error) { return c, nil }
}

// String shows the user name alone.
func (c Credentials) String() string { return fmt.Sprintf("%q, password redacted", c.Username) }

// GoString is String.
func (c Credentials) GoString() string { return "amqp.Credentials{" + c.String() + "}" }

// Format prints String whatever the verb.
func (c Credentials) Format(f fmt.State, verb rune) {
	if verb == 'v' && f.Flag('#') {
		io.WriteString(f, c.GoString())
		return
	}
	io.WriteString(f, c.String())
}

// LogValue shows the user name alone.
func (c Credentials) LogValue() slog.Value {
	return slog.GroupValue(slog.String("username", c.Username))
}
