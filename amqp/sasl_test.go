package amqp

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestStartSASL_PicksInOurOrder(t *testing.T) {
	creds := &Credentials{Username: "u", Password: "p"}
	amqplain := "\x05LOGINS\x00\x00\x00\x01u\x08PASSWORDS\x00\x00\x00\x01p"
	for _, tt := range []struct {
		name      string
		wanted    []SASL
		offered   string
		info      SASLInfo
		mechanism string
		response  string
	}{
		{"plain", []SASL{SASLPlain(), SASLAMQPlain()}, "AMQPLAIN PLAIN", SASLInfo{Credentials: creds}, "PLAIN", "\x00u\x00p"},
		{"amqplain", []SASL{SASLAMQPlain(), SASLPlain()}, "PLAIN AMQPLAIN", SASLInfo{Credentials: creds}, "AMQPLAIN", amqplain},
		{"second choice", []SASL{SASLExternal(), SASLPlain()}, "PLAIN", SASLInfo{Credentials: creds}, "PLAIN", "\x00u\x00p"},
		{"external", []SASL{SASLExternal()}, "PLAIN EXTERNAL", SASLInfo{TLS: true}, "EXTERNAL", ""},
		{"as the broker spells it", []SASL{SASLPlain()}, "  Plain ", SASLInfo{Credentials: creds}, "Plain", "\x00u\x00p"},
	} {
		run, err := startSASL(tt.wanted, tt.offered, tt.info)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if run.mechanism != tt.mechanism || string(run.response) != tt.response {
			t.Errorf("%s: got %s %q, want %s %q", tt.name, run.mechanism, run.response, tt.mechanism, tt.response)
		}
		if _, err := run.challenge([]byte("x")); err == nil {
			t.Errorf("%s: a challenge that was not expected was answered", tt.name)
		}
	}
}

func TestStartSASL_Errors(t *testing.T) {
	creds := &Credentials{Username: "u", Password: "p\x00q"}
	for _, tt := range []struct {
		name    string
		wanted  []SASL
		offered string
		info    SASLInfo
		want    string
	}{
		{"none in common", []SASL{SASLPlain(), SASLExternal()}, "CRAM GSSAPI", SASLInfo{},
			`amqp: no common SASL mechanism: the broker offers ["CRAM" "GSSAPI"]; configured here: ["PLAIN" "EXTERNAL"]`},
		{"none offered", []SASL{SASLPlain()}, "", SASLInfo{},
			`amqp: no common SASL mechanism: the broker offers none; configured here: ["PLAIN"]`},
		{"no credentials", []SASL{SASLPlain()}, "PLAIN", SASLInfo{}, "amqp: SASL PLAIN: no user name and password were given"},
		{"no credentials", []SASL{SASLAMQPlain()}, "AMQPLAIN", SASLInfo{}, "amqp: SASL AMQPLAIN: no user name and password were given"},
		{"zero byte", []SASL{SASLPlain()}, "PLAIN", SASLInfo{Credentials: creds},
			"amqp: SASL PLAIN: a user name or password with a zero byte has no form in this mechanism"},
		// Not passed over for PLAIN: that would send a password in clear.
		{"external in clear", []SASL{SASLExternal(), SASLPlain()}, "PLAIN EXTERNAL", SASLInfo{Credentials: creds},
			"amqp: SASL EXTERNAL: only over TLS: the broker takes the user from the client's certificate"},
	} {
		_, err := startSASL(tt.wanted, tt.offered, tt.info)
		var e *SASLError
		if !errors.As(err, &e) || err.Error() != tt.want {
			t.Errorf("%s: got %v, want %s", tt.name, err, tt.want)
		}
	}
}

// counting is a mechanism of three rounds that remembers what was said.
type counting struct{}

func (counting) Mechanism() string { return "X-COUNTING" }

func (counting) Start(info SASLInfo) ([]byte, SASLNext, error) {
	said := info.Credentials.Username
	return []byte(said), func(challenge []byte) ([]byte, error) {
		if string(challenge) == "stop" {
			return nil, errors.New("told to stop")
		}
		said += string(challenge)
		return []byte(said), nil
	}, nil
}

func TestSASL_RoundsKeepTheirStatePerHandshake(t *testing.T) {
	mechanisms := []SASL{counting{}}
	var wg sync.WaitGroup
	for _, user := range []string{"a", "b", "c", "d"} {
		wg.Go(func() {
			run, err := startSASL(mechanisms, "PLAIN X-COUNTING", SASLInfo{Credentials: &Credentials{Username: user}})
			if err != nil {
				t.Error(err)
				return
			}
			got := string(run.response)
			for _, c := range []string{"1", "2"} {
				p, err := run.challenge([]byte(c))
				if err != nil {
					t.Error(err)
				}
				got += " " + string(p)
			}
			if want := user + " " + user + "1 " + user + "12"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			if _, err := run.challenge([]byte("stop")); err == nil || err.Error() != "amqp: SASL X-COUNTING: told to stop" {
				t.Errorf("got %v", err)
			}
		})
	}
	wg.Wait()
}

func TestDecode_ReadsWhatStartWrites(t *testing.T) {
	for _, want := range []Credentials{{}, {Username: "u", Password: "p"}, {Username: "ü", Password: "%@/: " + strings.Repeat("x", 5000)}} {
		for _, m := range []struct {
			sasl   SASL
			decode func([]byte) (Credentials, error)
		}{{SASLPlain(), DecodePLAIN}, {SASLAMQPlain(), DecodeAMQPLAIN}} {
			p, _, err := m.sasl.Start(SASLInfo{Credentials: &want})
			if err != nil {
				t.Fatal(err)
			}
			got, err := m.decode(p)
			if err != nil || got.Username != want.Username || got.Password != want.Password {
				t.Errorf("%s: %v, %v", m.sasl.Mechanism(), got, err)
			}
			for n := range len(p) { // a response cut short is never misread, nor repeated
				got, err := m.decode(p[:n])
				if err == nil && got.Password == want.Password && got.Username == want.Username {
					t.Errorf("%s: %d of %d bytes were enough", m.sasl.Mechanism(), n, len(p))
				}
			}
		}
	}
	// AMQPLAIN is a table without its length: the table decoder reads it too.
	p, _, _ := SASLAMQPlain().Start(SASLInfo{Credentials: &Credentials{Username: "u", Password: "p"}})
	table, err := DecodeTable(append([]byte{0, 0, 0, byte(len(p))}, p...))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(Table{"LOGIN": "u", "PASSWORD": "p"}, table); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	for _, bad := range []string{"", "\x05LOGIN", "\x05LOGINt\x01", "\x05LOGINS\xff\xff\xff\xffx", "\x05LOGINS\x00\x00\x00\x01u"} {
		if _, err := DecodeAMQPLAIN([]byte(bad)); err == nil {
			t.Errorf("DecodeAMQPLAIN(%q) passed", bad)
		}
	}
	for _, bad := range []string{"", "u\x00p", "z\x00u\x00p", "\x00u\x00p\x00"} {
		if _, err := DecodePLAIN([]byte(bad)); err == nil {
			t.Errorf("DecodePLAIN(%q) passed", bad)
		}
	}
}

func TestCredentials_NeverShowThePassword(t *testing.T) {
	password, leaks := secret(t)
	creds := Credentials{Username: "user", Password: password}
	things := []any{creds, &creds, SASLInfo{Credentials: &creds}, &SASLInfo{Credentials: &creds},
		[]Credentials{creds}, map[string]Credentials{"k": creds}, Config{Credentials: StaticCredentials("user", password)}}
	for _, m := range []SASL{SASLPlain(), SASLAMQPlain(), SASLExternal()} {
		things = append(things, m)
	}
	bad := Credentials{Username: "user", Password: password + "\x00"}
	_, err := startSASL([]SASL{SASLPlain()}, "PLAIN", SASLInfo{Credentials: &bad})
	things = append(things, err)
	_, err = DecodePLAIN([]byte("x\x00user\x00" + password))
	things = append(things, err)
	_, err = DecodeAMQPLAIN([]byte("\x08PASSWORDS\x00\x00\x00\xff" + password))
	things = append(things, err)
	for _, v := range things {
		for _, s := range printAll(v) {
			if form := leaks(s); form != "" {
				t.Errorf("%T: %q shows %q", v, s, form)
			}
		}
	}
}
