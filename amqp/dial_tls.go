package amqp

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// clientTLS makes the TLS configuration of one dial, reading the files afresh.
// Its errors name the files and repeat nothing of them.
func (c *Config) clientTLS(serverName string) (*tls.Config, error) {
	conf := &tls.Config{}
	if c.TLS != nil {
		conf = c.TLS.Clone()
	}
	if conf.MinVersion == 0 {
		conf.MinVersion = tls.VersionTLS12 // whatever GODEBUG says
	}
	conf.ServerName = serverName
	files := c.TLSFiles
	if files.CA != "" {
		pem, err := os.ReadFile(files.CA)
		if err != nil {
			return nil, err
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("no certificate in %s", files.CA)
		}
	}
	if files.Cert != "" {
		key := files.Key
		if key == "" {
			key = files.Cert
		}
		cert, err := tls.LoadX509KeyPair(files.Cert, key)
		if err != nil {
			return nil, fmt.Errorf("certificate %s with key %s: %w", files.Cert, key, err)
		}
		conf.Certificates = []tls.Certificate{cert}
		conf.GetClientCertificate = nil
	}
	return conf, nil
}

// explainTLS adds the likely cause to errors of a TLS handshake that do not
// name it.
func explainTLS(err error) error {
	var header tls.RecordHeaderError
	if errors.As(err, &header) {
		return fmt.Errorf("the other side does not speak TLS (RabbitMQ's TLS port is usually 5671): %w", err)
	}
	return err
}
