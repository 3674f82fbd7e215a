package amqp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"time"
)

// secrets asks for credentials, for one at a time: what a provider does may be
// dear, and two links that dial together are to have the same token.
type secrets struct {
	ask  func(context.Context) (Credentials, error)
	turn chan struct{} // cap 1
	last *Credentials  // the newest that expire; turn guards it
}

// get is the credentials for a dial.
func (s *secrets) get(ctx context.Context) (Credentials, error) {
	return s.fresh(ctx, time.Time{})
}

// fresh is credentials that expire later than after, from memory where another
// link asked for them a moment ago.
func (s *secrets) fresh(ctx context.Context, after time.Time) (Credentials, error) {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return Credentials{}, contextError(ctx)
	}
	defer func() { <-s.turn }()
	if l := s.last; l != nil && !after.IsZero() && l.Expires.After(after) && time.Until(l.Expires) > 0 {
		return *l, nil
	}
	creds, err := s.ask(ctx)
	if err == nil && !creds.Expires.IsZero() {
		s.last = &creds
	}
	return creds, err
}

// never is long enough for a timer that is not to fire.
const never = 1 << 62

// due is how long from now credentials are to be renewed: when a fifth of
// their life is left, but a second before the end at least.
func (s *secrets) due(creds *Credentials) time.Duration {
	if creds == nil || creds.Expires.IsZero() {
		return never
	}
	left := time.Until(creds.Expires)
	return max(min(left-left/5, left-time.Second), 0)
}

// retrySecret is how long to wait after a refresh that failed.
const retrySecret = 2 * time.Second

// renew gives the broker the next credentials, and says when to come again.
func (l *link) renew(ctx context.Context, conn *Conn) time.Duration {
	c := l.c
	old := l.credentials()
	if old == nil || old.Expires.IsZero() {
		return never
	}
	bounded, cancel := context.WithTimeout(ctx, max(time.Until(old.Expires), retrySecret))
	defer cancel()
	creds, err := c.secrets.fresh(bounded, old.Expires)
	if err == nil {
		err = conn.UpdateSecret(bounded, creds.Password, "renewed ahead of its expiry")
	}
	if err != nil {
		if !lost(conn) && ctx.Err() == nil && c.cfg.Logger != nil {
			c.cfg.Logger.Warn("amqp: credentials could not be renewed", "error", err)
		}
		return retrySecret
	}
	c.mu.Lock()
	l.creds = &creds
	c.counts.renewed.Add(1)
	c.mu.Unlock()
	return max(c.secrets.due(&creds), retrySecret)
}

func isCertificateError(err error) bool {
	var verify *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	return errors.As(err, &verify) || errors.As(err, &authority) || errors.As(err, &host) || errors.As(err, &invalid)
}
