package amqp

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The first rows are those of the specification's Appendix A.
var goodURIs = []struct {
	in   string
	want URI
}{
	{"amqp://user:pass@host:10000/vhost", URI{Hosts: []string{"host:10000"}, Username: "user", Password: "pass", UserSet: true, VHost: "vhost", VHostSet: true}},
	{"amqp://user%61:%61pass@ho%61st:10000/v%2fhost", URI{Hosts: []string{"hoast:10000"}, Username: "usera", Password: "apass", UserSet: true, VHost: "v/host", VHostSet: true}},
	{"amqp://", URI{Hosts: []string{"localhost:5672"}, VHost: "/"}},
	{"amqp://:@/", URI{Hosts: []string{"localhost:5672"}, UserSet: true, VHostSet: true}},
	{"amqp://user@", URI{Hosts: []string{"localhost:5672"}, Username: "user", UserSet: true, VHost: "/"}},
	{"amqp://user:pass@", URI{Hosts: []string{"localhost:5672"}, Username: "user", Password: "pass", UserSet: true, VHost: "/"}},
	{"amqp://host", URI{Hosts: []string{"host:5672"}, VHost: "/"}},
	{"amqp://:10000", URI{Hosts: []string{"localhost:10000"}, VHost: "/"}},
	{"amqp:///vhost", URI{Hosts: []string{"localhost:5672"}, VHost: "vhost", VHostSet: true}},
	{"amqp://host/", URI{Hosts: []string{"host:5672"}, VHostSet: true}},
	{"amqp://host/%2f", URI{Hosts: []string{"host:5672"}, VHost: "/", VHostSet: true}},
	{"amqp://[::1]", URI{Hosts: []string{"[::1]:5672"}, VHost: "/"}},

	{"AMQPS://Host", URI{Scheme: "amqps", Hosts: []string{"Host:5671"}, VHost: "/"}},
	{"amqp://host:", URI{Hosts: []string{"host:5672"}, VHost: "/"}},
	{"amqp://a,b:1,[::1],[2001:db8::2]:3", URI{Hosts: []string{"a:5672", "b:1", "[::1]:5672", "[2001:db8::2]:3"}, VHost: "/"}},
	{"amqp://[fe80::1%25eth0]:5673/v", URI{Hosts: []string{"[fe80::1%eth0]:5673"}, VHost: "v", VHostSet: true}},
	{"amqp://[fe80::1%eth0]", URI{Hosts: []string{"[fe80::1%eth0]:5672"}, VHost: "/"}},
	{"amqp://u:a:b@h", URI{Hosts: []string{"h:5672"}, Username: "u", Password: "a:b", UserSet: true, VHost: "/"}},
	{"amqp://%40%3A%2F%25:%40%3A%2F%25%00%ff@h/%40", URI{Hosts: []string{"h:5672"}, Username: "@:/%", Password: "@:/%\x00\xff", UserSet: true, VHost: "@", VHostSet: true}},
	{"amqp://u+v:p+q@h/a+b", URI{Hosts: []string{"h:5672"}, Username: "u+v", Password: "p+q", UserSet: true, VHost: "a+b", VHostSet: true}},
	{"amqp://h?", URI{Hosts: []string{"h:5672"}, VHost: "/"}},
	{"amqp://h/?heartbeat=0", URI{Hosts: []string{"h:5672"}, VHostSet: true, Query: URIQuery{Heartbeat: -1}}},
	{"amqp://h?heartbeat=5&connection_timeout=1500&channel_max=9&frame_max=8192&auth_mechanism=PLAIN&auth_mechanism=amqplain",
		URI{Hosts: []string{"h:5672"}, VHost: "/", Query: URIQuery{Heartbeat: 5 * time.Second, ConnectionTimeout: 1500 * time.Millisecond,
			ChannelMax: 9, FrameMax: 8192, AuthMechanisms: []string{"plain", "amqplain"}}}},
	{"amqps://h?cacertfile=/a/b+c%20d.pem&certfile=/c.pem&keyfile=/k.pem&verify=verify_peer&server_name_indication=x&fail_if_no_peer_cert=true&customize_hostname_check=https",
		URI{Scheme: "amqps", Hosts: []string{"h:5671"}, VHost: "/", Query: URIQuery{CACertFile: "/a/b+c d.pem", CertFile: "/c.pem", KeyFile: "/k.pem", ServerName: "x"}}},
	{"amqp+unix:///run/rabbit%20mq.sock", URI{Scheme: SchemeUnix, Path: "/run/rabbit mq.sock", VHost: "/"}},
	{"amqp+unix://u:p@/run/r.sock?vhost=%2Fx&heartbeat=1", URI{Scheme: SchemeUnix, Path: "/run/r.sock", Username: "u", Password: "p", UserSet: true,
		VHost: "/x", VHostSet: true, Query: URIQuery{Heartbeat: time.Second}}},
	{"amqp+unix:///run/r.sock?vhost=", URI{Scheme: SchemeUnix, Path: "/run/r.sock", VHostSet: true}},
}

func TestParseURI_Good(t *testing.T) {
	for _, tt := range goodURIs {
		got, err := ParseURI(tt.in)
		if err != nil {
			t.Errorf("ParseURI(%q): %v", tt.in, err)
			continue
		}
		want := tt.want
		if want.Scheme == "" {
			want.Scheme = SchemeAMQP
		}
		if d := cmp.Diff(want, *got); d != "" {
			t.Errorf("ParseURI(%q) (-want +got):\n%s", tt.in, d)
		}
	}
}

var badURIs = []struct{ in, part string }{
	{"", "scheme"},
	{"host:5672", "scheme"},
	{"http://host", "scheme"},
	{"amqp:host", "scheme"},
	{"amqp://ho st", "URI"},
	{"amqp://h\n", "URI"},
	{"amqp://u:p@w@h", "URI"},
	{"amqp://u:p/w@h", "URI"},
	{"amqp://u:p?w@h", "URI"},
	{"amqp://u:1/w@h/", "URI"},
	{"amqp://u:1?heartbeat=w@h/", "URI"},
	{"amqp://u:1#w@h/", "URI"},
	{"amqp://h/a@b", "URI"},
	{"amqp://h/a#b", "fragment"},
	{"amqp://h/a/b", "vhost"},
	{"amqp://h//", "vhost"},
	{"amqp://h/%2", "vhost"},
	{"amqp://h/%zz", "vhost"},
	{"amqp://h/" + strings.Repeat("v", 256), "vhost"},
	{"amqp://u%:p@h", "user name"},
	{"amqp://u:p%4@h", "password"},
	{"amqp://u:p%+1@h", "password"},
	{"amqp://h,", "host"},
	{"amqp://,h", "host"},
	{"amqp://h%2f", "host"},
	{"amqp://h\xff", "host"},
	{"amqp://h*", "host"},
	{"amqp://::1", "host"},
	{"amqp://[::1", "host"},
	{"amqp://[::1]x", "host"},
	{"amqp://[1.2.3.4]", "host"},
	{"amqp://[fe80::1%]", "host"},
	{"amqp://[fe80::1%25a%2fb]", "host"},
	{"amqp://h:0", "port"},
	{"amqp://h:65536", "port"},
	{"amqp://h:-1", "port"},
	{"amqp://h:x", "port"},
	{"amqp+unix://h/run/s", "host"},
	{"amqp+unix://", "path"},
	{"amqp+unix:///", "path"},
	{"amqp+unix:///%00", "path"},
	{"amqp://h?heartbeat", "heartbeat"},
	{"amqp://h?=1", "query"},
	{"amqp://h?heartbeat=1&", "query"},
	{"amqp://h?heartbeat=1&heartbeat=2", "heartbeat"},
	{"amqp://h?heartbeat=1.5", "heartbeat"},
	{"amqp://h?heartbeat=65536", "heartbeat"},
	{"amqp://h?heartbeat=-1", "heartbeat"},
	{"amqp://h?heartbeat=%zz", "heartbeat"},
	{"amqp://h?connection_timeout=0", "connection_timeout"},
	{"amqp://h?channel_max=65536", "channel_max"},
	{"amqp://h?frame_max=4095", "frame_max"},
	{"amqp://h?auth_mechanism=digest", "auth_mechanism"},
	{"amqp://h?auth_mechanism=plain&auth_mechanism=PLAIN", "auth_mechanism"},
	{"amqp://h?vhost=x", "vhost"},
	{"amqp://h?nonsense=1", "nonsense"},
	{"amqp://h?verify=verify_none", "verify"},
	{"amqp://h?cacertfile=/a", "cacertfile"},
	{"amqp+unix:///s?cacertfile=/a", "cacertfile"},
	{"amqps://h?verify=verify_none", "verify"},
	{"amqps://h?verify=", "verify"},
	{"amqps://h?fail_if_no_peer_cert=false", "fail_if_no_peer_cert"},
	{"amqps://h?server_name_indication=disable", "server_name_indication"},
	{"amqps://h?server_name_indication=", "server_name_indication"},
	{"amqps://h?customize_hostname_check=none", "customize_hostname_check"},
	{"amqps://h?depth=9", "depth"},
	{"amqps://h?password=x", "password"},
	{"amqps://h?keyfile=/k", "keyfile"},
	{"amqps://h?cacertfile=", "cacertfile"},
	{"amqps://h?insecure_skip_verify=true", "insecure_skip_verify"},
}

func TestParseURI_BadNamesThePart(t *testing.T) {
	for _, tt := range badURIs {
		u, err := ParseURI(tt.in)
		var e *URIError
		if !errors.As(err, &e) {
			t.Errorf("ParseURI(%q) = %v, %v; want a *URIError", tt.in, u, err)
			continue
		}
		if e.Part != tt.part {
			t.Errorf("ParseURI(%q): %v; want it to name %q", tt.in, err, tt.part)
		}
	}
	_, err := ParseURI("amqps://h?verify=verify_none")
	if !strings.Contains(err.Error(), "verify_none") {
		t.Errorf("%v; want it to name verify_none", err)
	}
}

// randomURI makes a URI of any shape that ParseURI may return.
func randomURI(r *rand.Rand) URI {
	word := func() string {
		const letters = "%@/:?#[]&=+, aZ0-._~\x00\x7f\xff\u00e9"
		b := make([]byte, r.IntN(9))
		for i := range b {
			b[i] = letters[r.IntN(len(letters))]
		}
		return string(b)
	}
	u := URI{Scheme: []string{SchemeAMQP, SchemeAMQPS, SchemeUnix}[r.IntN(3)], VHost: "/"}
	if r.IntN(2) == 0 {
		u.UserSet, u.Username, u.Password = true, word(), word()
	}
	if r.IntN(2) == 0 {
		u.VHostSet, u.VHost = true, word()
	}
	if u.Scheme == SchemeUnix {
		u.Path = "/" + strings.ReplaceAll(word(), "\x00", "") + "s"
	} else {
		hosts := []string{"a:1", "b.example:5672", "[::1]:5671", "[fe80::1%eth0]:9", "127.0.0.1:65535"}
		u.Hosts = hosts[:1+r.IntN(len(hosts))]
	}
	q := &u.Query
	q.Heartbeat = []time.Duration{0, -1, time.Second, 65535 * time.Second}[r.IntN(4)]
	q.ConnectionTimeout = time.Duration(r.IntN(3)) * 1234 * time.Millisecond
	q.ChannelMax = uint16(r.IntN(2) * 2047)
	q.FrameMax = uint32(r.IntN(2) * 8192)
	q.AuthMechanisms = [][]string{nil, {"plain"}, {"external", "amqplain"}}[r.IntN(3)]
	if u.Scheme == SchemeAMQPS && r.IntN(2) == 0 {
		q.CACertFile, q.CertFile, q.KeyFile = "/a b&c=d.pem", "/c%d", "/k+"
		q.ServerName = "broker.example"
	}
	return u
}

func TestURI_EncodeRoundTrips(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		want := randomURI(r)
		s := want.Encode()
		got, err := ParseURI(s)
		if err != nil {
			t.Fatalf("ParseURI(%q): %v", s, err)
		}
		if d := cmp.Diff(want, *got); d != "" {
			t.Fatalf("%q (-want +got):\n%s", s, d)
		}
	}
}

func FuzzURI(f *testing.F) {
	for _, tt := range goodURIs {
		f.Add(tt.in)
	}
	for _, tt := range badURIs {
		f.Add(tt.in)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseURI(s)
		if err != nil {
			return
		}
		again, err := ParseURI(u.Encode())
		if err != nil {
			t.Fatalf("%q became %q: %v", s, u.Encode(), err)
		}
		if d := cmp.Diff(*u, *again); d != "" {
			t.Fatalf("%q became %q (-want +got):\n%s", s, u.Encode(), d)
		}
	})
}

// secret is a random password with every delimiter of a URI in it, and the
// forms in which it must not turn up anywhere.
func secret(t *testing.T) (password string, leaks func(s string) string) {
	t.Helper()
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	piece := func() string {
		b := make([]byte, 10)
		for i := range b {
			b[i] = letters[rand.IntN(len(letters))]
		}
		return string(b)
	}
	pieces := []string{piece(), piece(), piece(), piece(), piece()}
	password = pieces[0] + "%@/:" + pieces[1] + "?" + pieces[2] + "#" + pieces[3] + "[]&= " + pieces[4]
	plain := "\x00user\x00" + password
	forms := append(pieces, password, url.QueryEscape(password), url.PathEscape(password), escape(password),
		base64.StdEncoding.EncodeToString([]byte(password)), base64.RawURLEncoding.EncodeToString([]byte(password)),
		base64.StdEncoding.EncodeToString([]byte(plain)), base64.RawURLEncoding.EncodeToString([]byte(plain)),
		fmt.Sprintf("%x", password), fmt.Sprintf("%X", password), fmt.Sprint([]byte(password)), fmt.Sprintf("%q", password))
	return password, func(s string) string {
		for _, form := range forms {
			if strings.Contains(s, form) {
				return form
			}
		}
		return ""
	}
}

// printAll prints v in every way that a program may.
func printAll(v any) []string {
	var out []string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T"} {
		out = append(out, fmt.Sprintf(verb, v), fmt.Sprintf(verb, struct{ V any }{v}), fmt.Sprintf(verb, []any{v}))
	}
	var b strings.Builder
	for _, h := range []slog.Handler{slog.NewTextHandler(&b, nil), slog.NewJSONHandler(&b, nil)} {
		slog.New(h).Info("x", "v", v, "w", struct{ V any }{v})
	}
	j, _ := json.Marshal(v)
	out = append(out, b.String(), string(j))
	if err, ok := v.(error); ok {
		for e := err; e != nil; e = errors.Unwrap(e) {
			out = append(out, e.Error(), fmt.Sprintf("%#v", e))
		}
	}
	return out
}

func TestURI_NeverShowsThePassword(t *testing.T) {
	password, leaks := secret(t)
	u, err := ParseURI("amqps://user:" + escape(password) + "@host/v")
	if err != nil {
		t.Fatal(err)
	}
	if u.Password != password {
		t.Fatalf("got %q, want %q", u.Password, password)
	}
	if got, want := u.String(), "amqps://user:redacted@host:5671/v"; got != want {
		t.Errorf("String() = %q, want %q", got, want)
	}
	for _, v := range []any{u, *u} {
		for _, s := range printAll(v) {
			if form := leaks(s); form != "" {
				t.Errorf("%q shows %q", s, form)
			}
		}
	}
	// A password that somebody forgot to encode, in URIs broken in every way.
	for _, raw := range []string{password, escape(password), url.QueryEscape(password), strings.ReplaceAll(password, "%", "%25"), strings.ReplaceAll(password, "@", "%40")} {
		for _, form := range []string{"amqp://user:%s@host/v", "amqp://user:%s@host:x/v", "amqp://user:%s@h*/", "http://user:%s@h", "amqp:/%s@h",
			"amqp://user:%s@", "amqp://user:%s", "amqp://%s@h", "amqp://user:1/%s@h", "amqp://user:1?heartbeat=%s@h", "amqp://h?%s@=1",
			"amqps://user:%s@h?verify=verify_none", "amqps://h?cacertfile=%s", "amqp://h?auth_mechanism=%s", "amqps://h?password=%s", "%s"} {
			u, err := ParseURI(strings.Replace(form, "%s", raw, 1))
			for _, s := range append(printAll(err), printAll(u)...) {
				// Parts that are no password may be shown by a URI; an error shows none.
				if form := leaks(s); form != "" && err != nil {
					t.Errorf("%q shows %q", s, form)
				}
			}
		}
	}
}

// With a password in the URI and none of it encoded, either the URI is refused
// or no part of the password is taken for anything else.
func TestParseURI_RawPasswordIsNeverSplit(t *testing.T) {
	for _, raw := range []string{"a/b", "12/b", "12?b", "12#b", "a@b", "12,b", "a,b:c", "[::1]", "12?heartbeat=1"} {
		u, err := ParseURI("amqp://user:" + raw + "@host/v")
		if err == nil && (u.Password != raw || cmp.Diff(u.Hosts, []string{"host:5672"}) != "") {
			t.Errorf("password %q was taken as %+v", raw, u)
		}
	}
}
