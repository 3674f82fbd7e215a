package amqp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestResolveDial_Targets(t *testing.T) {
	for _, tt := range []struct {
		uri   string
		cfg   *Config
		want  []dialTarget
		vhost string
	}{
		{"amqp://", nil, []dialTarget{{"tcp", "localhost:5672", "localhost", "", false}}, "/"},
		{"amqp://h/", nil, []dialTarget{{"tcp", "h:5672", "h", "", false}}, ""},
		{"amqp://h/", &Config{VHost: "v"}, []dialTarget{{"tcp", "h:5672", "h", "", false}}, "v"},
		{"amqps://a,b:1/v", nil, []dialTarget{{"tcp", "a:5671", "a", "a", true}, {"tcp", "b:1", "b", "b", true}}, "v"},
		{"amqps://[fe80::1%25eth0]", nil, []dialTarget{{"tcp", "[fe80::1%eth0]:5671", "fe80::1%eth0", "fe80::1", true}}, "/"},
		{"amqps://a?server_name_indication=b", nil, []dialTarget{{"tcp", "a:5671", "a", "b", true}}, "/"},
		{"amqps://a?server_name_indication=b", &Config{TLS: &tls.Config{ServerName: "c"}}, []dialTarget{{"tcp", "a:5671", "a", "c", true}}, "/"},
		{"amqp://h", &Config{Hosts: []string{"x", "y:1", "[::1]:2", "::1", ":3"}}, []dialTarget{
			{"tcp", "x:5672", "x", "", false}, {"tcp", "y:1", "y", "", false}, {"tcp", "[::1]:2", "::1", "", false},
			{"tcp", "[::1]:5672", "::1", "", false}, {"tcp", "localhost:3", "localhost", "", false}}, "/"},
		{"amqp+unix:///s?vhost=v", nil, []dialTarget{{"unix", "/s", "", "", false}}, "v"},
	} {
		p, err := resolveDial(tt.uri, tt.cfg)
		if err != nil {
			t.Errorf("%s: %v", tt.uri, err)
			continue
		}
		if d := cmp.Diff(tt.want, p.targets, cmp.AllowUnexported(dialTarget{})); d != "" || p.vhost != tt.vhost {
			t.Errorf("%s: vhost %q, want %q (-want +got):\n%s", tt.uri, p.vhost, tt.vhost, d)
		}
	}
}

// settings is what of a Config can be compared.
func settings(c Config) map[string]any {
	creds, err := c.Credentials(context.Background())
	m := map[string]any{
		"creds": creds.Username + "/" + creds.Password, "heartbeat": c.Heartbeat, "dial": c.DialTimeout, "close": c.CloseTimeout,
		"keepalive": c.TCPKeepAlive, "channels": c.ChannelMax, "frame": c.FrameMax, "body": c.MaxBody,
		"unconfirmed": c.Unconfirmed, "outbox": c.MaxOutbox, "files": c.TLSFiles,
	}
	if err != nil {
		m["creds"] = err.Error()
	}
	var names []string
	for _, s := range c.SASL {
		names = append(names, s.Mechanism())
	}
	m["sasl"] = names
	return m
}

func TestResolveDial_ConfigOverURIOverDefaults(t *testing.T) {
	defaults := map[string]any{
		"creds": "guest/guest", "heartbeat": 10 * time.Second, "dial": 30 * time.Second, "close": 10 * time.Second,
		"keepalive": 15 * time.Second, "channels": uint16(0), "frame": uint32(131072), "body": int64(16 << 20),
		"unconfirmed": 4096, "outbox": 128 << 10, "files": TLSFiles{}, "sasl": []string{"PLAIN", "AMQPLAIN"},
	}
	with := func(changes map[string]any) map[string]any {
		m := map[string]any{}
		for k, v := range defaults {
			m[k] = v
		}
		for k, v := range changes {
			m[k] = v
		}
		return m
	}
	const uri = "amqps://u:p@h?heartbeat=3&connection_timeout=500&channel_max=7&frame_max=9000&auth_mechanism=external" +
		"&cacertfile=/ca&certfile=/c&keyfile=/k"
	for _, tt := range []struct {
		name string
		uri  string
		cfg  *Config
		want map[string]any
	}{
		{"defaults", "amqp://h", nil, defaults},
		{"zero", "amqp://h", &Config{}, defaults},
		{"the URI's", uri, nil, with(map[string]any{
			"creds": "u/p", "heartbeat": 3 * time.Second, "dial": 500 * time.Millisecond, "channels": uint16(7),
			"frame": uint32(9000), "sasl": []string{"EXTERNAL"}, "files": TLSFiles{"/ca", "/c", "/k"}})},
		{"the config's", uri, &Config{
			Credentials: StaticCredentials("a", "b"), Heartbeat: -1, DialTimeout: -1, CloseTimeout: -1, TCPKeepAlive: -1,
			ChannelMax: 1, FrameMax: 4096, MaxBody: -1, Unconfirmed: 1, MaxOutbox: 2, SASL: []SASL{SASLAMQPlain()},
			TLSFiles: TLSFiles{CA: "/x", Cert: "/y"}},
			map[string]any{"creds": "a/b", "heartbeat": time.Duration(-1), "dial": time.Duration(-1), "close": time.Duration(-1),
				"keepalive": time.Duration(-1), "channels": uint16(1), "frame": uint32(4096), "body": int64(-1),
				"unconfirmed": 1, "outbox": 2, "sasl": []string{"AMQPLAIN"}, "files": TLSFiles{CA: "/x", Cert: "/y"}}},
		{"certificates in TLS", uri, &Config{TLS: &tls.Config{RootCAs: x509.NewCertPool(), Certificates: []tls.Certificate{{}}}}, with(map[string]any{
			"creds": "u/p", "heartbeat": 3 * time.Second, "dial": 500 * time.Millisecond, "channels": uint16(7),
			"frame": uint32(9000), "sasl": []string{"EXTERNAL"}})},
		{"no heartbeat", "amqp://h?heartbeat=0", nil, with(map[string]any{"heartbeat": time.Duration(-1)})},
		{"a user without a password", "amqp://u@h", nil, with(map[string]any{"creds": "u/"})},
	} {
		p, err := resolveDial(tt.uri, tt.cfg)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if d := cmp.Diff(tt.want, settings(p.config)); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, d)
		}
	}
}

func TestResolveDial_LeavesTheCallersConfigAlone(t *testing.T) {
	var cfg Config
	if _, err := resolveDial("amqps://u:p@h?auth_mechanism=plain", &cfg); err != nil {
		t.Fatal(err)
	}
	if cfg.SASL != nil || cfg.Credentials != nil || cfg.Hosts != nil || cfg.Heartbeat != 0 {
		t.Errorf("changed: %+v", cfg)
	}
}

func TestResolveDial_ConfigErrorsNameTheField(t *testing.T) {
	for _, tt := range []struct {
		uri   string
		cfg   Config
		field string
	}{
		{"amqp://h", Config{FrameMax: 4095}, "FrameMax"},
		{"amqp://h", Config{Heartbeat: 65536 * time.Second}, "Heartbeat"},
		{"amqp://h", Config{VHost: string(make([]byte, 256))}, "VHost"},
		{"amqp://h", Config{Unconfirmed: -1}, "Unconfirmed"},
		{"amqp://h", Config{MaxOutbox: -1}, "MaxOutbox"},
		{"amqp://h", Config{ReadPause: -1}, "ReadPause"},
		{"amqp://h", Config{ReadPause: time.Second}, "ReadPause"},
		{"amqp://h", Config{SASL: []SASL{nil}}, "SASL"},
		{"amqp://h", Config{Hosts: []string{"a/b"}}, "Hosts"},
		{"amqp://h", Config{TLS: &tls.Config{}}, "TLS"},
		{"amqp://h", Config{TLSFiles: TLSFiles{CA: "/ca"}}, "TLSFiles"},
		{"amqps://h", Config{TLSFiles: TLSFiles{Key: "/k"}}, "TLSFiles"},
		{"amqps://h", Config{TLS: &tls.Config{MinVersion: tls.VersionTLS11}}, "TLS"},
		{"amqps://h", Config{TLS: &tls.Config{MaxVersion: tls.VersionTLS11}}, "TLS"},
		{"amqp+unix:///s", Config{Hosts: []string{"h"}}, "Hosts"},
		{"amqp+unix:///s", Config{TLS: &tls.Config{}}, "TLS"},
	} {
		_, err := resolveDial(tt.uri, &tt.cfg)
		var e *ConfigError
		if !errors.As(err, &e) || e.Field != tt.field {
			t.Errorf("%s %s: got %v", tt.uri, tt.field, err)
		}
	}
	_, _, err := resolveConfig(&Config{TLS: &tls.Config{}})
	var e *ConfigError
	if !errors.As(err, &e) || e.Field != "TLS" {
		t.Errorf("NewConn with TLS: got %v", err)
	}
	if _, vhost, err := resolveConfig(nil); err != nil || vhost != "/" {
		t.Errorf("NewConn without a Config: vhost %q, %v", vhost, err)
	}
}
