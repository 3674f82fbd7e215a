package amqptest

import (
	"regexp"
	"slices"

	"github.com/warrenmq/warren/amqp"
)

// User is a user of a Server. Source: https://www.rabbitmq.com/docs/access-control.
type User struct {
	Name     string
	Password string

	// Impersonator says that the user may publish with any user-id, as with
	// RabbitMQ's tag of that name.
	Impersonator bool

	// Permissions says, by vhost, what the user may do. A user without an entry
	// for a vhost can't open it. nil means everything in every vhost.
	Permissions map[string]Permissions
}

// Permissions are regular expressions over the names of queues and exchanges,
// as rabbitmqctl set_permissions takes them: an empty one matches nothing but
// the empty name, ".*" everything.
type Permissions struct {
	Configure, Write, Read string

	// Topics limits, by topic exchange, the routing keys that may be published
	// and bound with; an exchange without an entry has no limit.
	Topics map[string]TopicPermission
}

// TopicPermission are regular expressions over routing keys.
type TopicPermission struct{ Write, Read string }

// user is a User with its expressions compiled.
type user struct {
	User
	perms map[string]*permissions
}

type permissions struct {
	ops    [3]*regexp.Regexp
	topics map[string][2]*regexp.Regexp
}

// operation is one of the three kinds of access to a resource.
type operation uint8

const (
	configure operation = iota
	write
	read
)

func newUser(u User) (*user, error) {
	c := &user{User: u}
	if u.Permissions == nil {
		return c, nil
	}
	c.perms = map[string]*permissions{}
	for vh, p := range u.Permissions {
		compiled := &permissions{topics: map[string][2]*regexp.Regexp{}}
		for i, s := range []string{p.Configure, p.Write, p.Read} {
			re, err := compilePattern(s)
			if err != nil {
				return nil, err
			}
			compiled.ops[i] = re
		}
		for x, t := range p.Topics {
			w, err := compilePattern(t.Write)
			if err != nil {
				return nil, err
			}
			r, err := compilePattern(t.Read)
			if err != nil {
				return nil, err
			}
			compiled.topics[x] = [2]*regexp.Regexp{w, r}
		}
		c.perms[vh] = compiled
	}
	return c, nil
}

func compilePattern(s string) (*regexp.Regexp, error) {
	if s == "" {
		s = "^$"
	}
	return regexp.Compile(s)
}

// may checks the access of s's user to a queue or exchange by name.
func (s *session) may(op operation, kind, name string) error {
	if s.user == nil || s.user.perms == nil {
		return nil
	}
	checked := name
	if kind == "exchange" && name == "" {
		checked = "amq.default" // what RabbitMQ calls the default exchange here
	}
	if p := s.user.perms[s.vh.name]; p != nil && p.ops[op].MatchString(checked) {
		return nil
	}
	return refusef(amqp.AccessRefused, "%s access to %s '%s' in vhost '%s' refused for user '%s'",
		[...]string{"configure", "write", "read"}[op], kind, checked, s.vh.name, s.user.Name)
}

// mayLook checks a passive declare: any access at all will do.
func (s *session) mayLook(kind, name string) error {
	err := s.may(configure, kind, name)
	if err != nil && (s.may(write, kind, name) == nil || s.may(read, kind, name) == nil) {
		return nil
	}
	return err
}

// mayBind checks a bind or unbind: the destination is written, the source read.
func (s *session) mayBind(t bindTarget) error {
	kind := "exchange"
	if t.queue {
		kind = "queue"
	}
	if err := s.may(write, kind, t.dest); err != nil {
		return err
	}
	if err := s.may(read, "exchange", t.source); err != nil {
		return err
	}
	return s.mayTopic(read, s.vh.exchanges[t.source], t.key)
}

// mayTopic checks a routing key against the user's topic permissions.
func (s *session) mayTopic(op operation, x *exchange, key string) error {
	if x == nil || x.kind != "topic" || s.user == nil || s.user.perms == nil {
		return nil
	}
	p := s.user.perms[s.vh.name]
	if p == nil {
		return nil
	}
	pair, ok := p.topics[x.name]
	if !ok || pair[op-write].MatchString(key) {
		return nil
	}
	return refusef(amqp.AccessRefused, "%s access to topic '%s' in exchange '%s' in vhost '%s' refused for user '%s'",
		[...]string{"configure", "write", "read"}[op], key, x.name, s.vh.name, s.user.Name)
}

// mayOpen reports whether the user may open a vhost.
func (u *user) mayOpen(vhost string) bool {
	if u.perms == nil {
		return true
	}
	_, ok := u.perms[vhost]
	return ok
}

// credentials checks a name and a password.
func (srv *Server) credentials(name, password string) *user {
	u := srv.users[name]
	if u == nil || u.Password != password {
		return nil
	}
	return u
}

// mechanisms is what connection.start offers.
func (srv *Server) mechanisms(tls bool) []string {
	if len(srv.cfg.Mechanisms) > 0 {
		return slices.Clone(srv.cfg.Mechanisms)
	}
	list := []string{"PLAIN", "ANONYMOUS", "AMQPLAIN"}
	if tls {
		list = append(list, "EXTERNAL")
	}
	return list
}
