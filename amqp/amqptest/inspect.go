package amqptest

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/warrenmq/warren/amqp"
)

// QueueInfo is what a server tells about a queue.
type QueueInfo struct {
	VHost, Name string
	Type        string // "classic", "quorum" or "stream"
	Durable     bool
	AutoDelete  bool
	Exclusive   bool
	Arguments   amqp.Table

	Ready     int // messages that wait; of a stream, all that it holds
	Unacked   int // messages that consumers hold
	Consumers int
	Published int // messages that ever came in
}

// BindingInfo is what a server tells about a binding. The implicit ones of the
// default exchange are not listed.
type BindingInfo struct {
	VHost, Source   string
	Destination     string
	DestinationType string // "queue" or "exchange"
	RoutingKey      string
	Arguments       amqp.Table
}

// ConsumerInfo is what a server tells about a consumer.
type ConsumerInfo struct {
	VHost, Queue, Tag string
	Connection        string // the client's connection_name, or ConnectionInfo.Name
	Channel           uint16
	NoAck, Exclusive  bool
	Prefetch          int
	Unacked           int
	Active            bool // false: x-single-active-consumer has another's turn
}

// ConnectionInfo is what a server tells about a connection.
type ConnectionInfo struct {
	Name       string // both addresses
	ClientName string // connection_name of the client's properties
	User       string
	VHost      string
	Channels   int
	TLS        bool
	Blocked    bool // an alarm keeps it from publishing
	Since      time.Time
	Properties amqp.Table // the client's
}

// Published is one message that was published, also to nowhere.
type Published struct {
	VHost, Exchange, RoutingKey string
	Message                     amqp.Message
	Queues                      int // how many it was routed to
	Time                        time.Time
}

// Queues lists all queues by vhost and name.
func (srv *Server) Queues() []QueueInfo {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	var list []QueueInfo
	for _, vh := range srv.sortedVHosts() {
		for _, name := range slices.Sorted(maps.Keys(vh.queues)) {
			list = append(list, vh.queues[name].info())
		}
	}
	return list
}

// Queue tells about one queue of the vhost "/". ok is false when there is none.
func (srv *Server) Queue(name string) (info QueueInfo, ok bool) { return srv.QueueIn("/", name) }

// QueueIn tells about one queue of a vhost.
func (srv *Server) QueueIn(vhost, name string) (info QueueInfo, ok bool) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	q := srv.findQueue(vhost, name)
	if q == nil {
		return QueueInfo{}, false
	}
	return q.info(), true
}

func (q *queue) info() QueueInfo {
	return QueueInfo{
		VHost: q.vh.name, Name: q.name, Type: q.opts.kind.String(), Durable: q.durable, AutoDelete: q.autoDelete,
		Exclusive: q.owner != nil, Arguments: maps.Clone(q.args),
		Ready: q.depth(), Unacked: q.unacked, Consumers: len(q.consumers), Published: int(q.published),
	}
}

// Exchanges lists the names of a vhost's exchanges; "" stands for "/".
func (srv *Server) Exchanges(vhost string) []string {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	vh := srv.findVHost(vhost)
	if vh == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(vh.exchanges))
}

// Bindings lists all bindings by vhost, source and the order they were made.
func (srv *Server) Bindings() []BindingInfo {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	var list []BindingInfo
	for _, vh := range srv.sortedVHosts() {
		for _, name := range slices.Sorted(maps.Keys(vh.exchanges)) {
			for _, b := range vh.exchanges[name].sortedBindings() {
				info := BindingInfo{VHost: vh.name, Source: name, RoutingKey: b.key, Arguments: maps.Clone(b.args)}
				if b.queue != nil {
					info.Destination, info.DestinationType = b.queue.name, "queue"
				} else {
					info.Destination, info.DestinationType = b.dest.name, "exchange"
				}
				list = append(list, info)
			}
		}
	}
	return list
}

// Consumers lists all consumers by vhost, queue and the order they came.
func (srv *Server) Consumers() []ConsumerInfo {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	var list []ConsumerInfo
	for _, vh := range srv.sortedVHosts() {
		for _, name := range slices.Sorted(maps.Keys(vh.queues)) {
			q := vh.queues[name]
			for _, c := range q.consumers {
				list = append(list, ConsumerInfo{
					VHost: vh.name, Queue: name, Tag: c.tag, Connection: c.ch.s.label(), Channel: c.ch.id,
					NoAck: c.noAck, Exclusive: c.exclusive, Prefetch: c.prefetch, Unacked: c.unacked,
					Active: q.single == nil || q.single == c,
				})
			}
		}
	}
	return list
}

func (s *session) label() string {
	if s.clientName != "" {
		return s.clientName
	}
	return s.name
}

// Connections lists the connections in the order they came, also those whose
// handshake is not over: they have no VHost.
func (srv *Server) Connections() []ConnectionInfo {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	var list []ConnectionInfo
	for _, s := range srv.sortedSessions() {
		info := ConnectionInfo{
			Name: s.name, ClientName: s.clientName, Channels: s.open, TLS: s.isTLS,
			Blocked: s.held != nil, Since: s.started, Properties: maps.Clone(s.props),
		}
		if s.user != nil {
			info.User = s.user.Name
		}
		if s.vh != nil {
			info.VHost = s.vh.name
		}
		list = append(list, info)
	}
	return list
}

// Published lists the messages published to an exchange of any vhost, oldest
// first: the latest that Config.Record has room for.
func (srv *Server) Published(exchange string) []Published {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	var list []Published
	for _, r := range srv.recorder.all() {
		if r.msg.exchange != exchange {
			continue
		}
		p := Published{VHost: r.vhost, Exchange: exchange, RoutingKey: r.msg.key, Queues: r.queues, Time: r.at}
		p.Message = r.msg.export()
		list = append(list, p)
	}
	return list
}

// Messages gives copies of the messages that wait in a queue of the vhost "/",
// the next one first, and leaves them there.
func (srv *Server) Messages(queue string) []amqp.Message {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	q := srv.findQueue("/", queue)
	if q == nil {
		return nil
	}
	var list []amqp.Message
	if q.log != nil {
		for _, e := range q.log.entries {
			list = append(list, e.msg.export())
		}
		return list
	}
	for i := len(q.ready.levels) - 1; i >= 0; i-- {
		for j := range q.ready.levels[i].n {
			list = append(list, q.ready.levels[i].at(j).msg.export())
		}
	}
	return list
}

func (m *message) export() amqp.Message {
	out := amqp.Message{Body: slices.Clone(m.body)}
	_ = out.Properties.DecodeFrom(slices.Clone(m.props)) // it was checked when it came
	return out
}

func (srv *Server) sortedVHosts() []*vhost {
	return slices.SortedFunc(maps.Values(srv.vhosts), func(a, b *vhost) int { return cmp.Compare(a.name, b.name) })
}

func (srv *Server) findVHost(name string) *vhost {
	if name == "" {
		name = "/"
	}
	return srv.vhosts[name]
}

func (srv *Server) findQueue(vhost, name string) *queue {
	if vh := srv.findVHost(vhost); vh != nil {
		return vh.queues[name]
	}
	return nil
}

// recorder keeps the latest messages that were published.
type recorder struct {
	ring  []recorded
	next  int
	bytes int
}

type recorded struct {
	vhost  string
	msg    *message
	queues int
	at     time.Time
}

// recordBytes bounds the bodies that a recorder keeps alive.
const recordBytes = 8 << 20

func (srv *Server) record(vh *vhost, m *message, queues int) {
	r := &srv.recorder
	size := srv.cfg.Record
	if size < 0 || len(m.body) > recordBytes {
		return
	}
	rec := recorded{vh.name, m, queues, time.Now()}
	r.bytes += len(m.body)
	if len(r.ring) < size {
		r.ring = append(r.ring, rec)
	} else {
		r.bytes -= len(r.ring[r.next].body())
		r.ring[r.next] = rec
		r.next = (r.next + 1) % size
	}
	for i := r.next; r.bytes > recordBytes; i++ { // from the oldest
		old := &r.ring[i%len(r.ring)]
		r.bytes -= len(old.body())
		*old = recorded{}
	}
}

func (r *recorded) body() []byte {
	if r.msg == nil {
		return nil
	}
	return r.msg.body
}

func (r *recorder) all() []recorded {
	var list []recorded
	for i := range r.ring {
		if rec := r.ring[(r.next+i)%len(r.ring)]; rec.msg != nil {
			list = append(list, rec)
		}
	}
	return list
}
