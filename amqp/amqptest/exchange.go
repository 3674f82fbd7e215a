package amqptest

import (
	"hash/fnv"
	"slices"
	"sort"

	"github.com/warrenmq/warren/amqp"
)

// exchange routes messages along its bindings. The bindings to it as a
// destination stand in inbound, so that deleting it removes them.
type exchange struct {
	vh         *vhost
	name       string
	kind       string
	durable    bool
	autoDelete bool
	internal   bool
	args       amqp.Table
	alternate  string // the alternate-exchange argument

	bindings map[string]*binding // outbound, by id
	inbound  map[*binding]struct{}
	router   router
	seen     uint64 // the routing that visited it last
}

// binding is one binding, to a queue or to an exchange.
type binding struct {
	src   *exchange
	queue *queue    // nil: the destination is an exchange
	dest  *exchange // nil: the destination is a queue
	key   string
	args  amqp.Table
	id    string
	order uint64
	match *headersMatch // of a headers exchange
}

// router finds the bindings of an exchange that match a message.
type router interface {
	add(b *binding)
	remove(b *binding)
	route(m *message, key string, hit func(*binding))
}

// bindingID tells bindings apart: the same destination, key and arguments
// make the same binding, which exists once.
func bindingID(queue bool, dest, key string, args amqp.Table) string {
	kind := "x"
	if queue {
		kind = "q"
	}
	return kind + "\x00" + dest + "\x00" + key + "\x00" + canonical(args)
}

// newRouter makes the router of an exchange type; nil when there is no such type.
func newRouter(x *exchange) router {
	switch x.kind {
	case "direct":
		return &directRouter{byKey: map[string][]*binding{}}
	case "fanout":
		return &listRouter{pick: everyBinding}
	case "topic":
		return newTopicRouter()
	case "headers":
		return &headersRouter{}
	case "x-local-random":
		return &listRouter{pick: x.randomBinding}
	case "x-modulus-hash":
		return &listRouter{pick: hashedBinding}
	}
	return nil
}

// directRouter compares keys.
type directRouter struct{ byKey map[string][]*binding }

func (r *directRouter) add(b *binding) { r.byKey[b.key] = append(r.byKey[b.key], b) }

func (r *directRouter) remove(b *binding) {
	rest := deleteBinding(r.byKey[b.key], b)
	if len(rest) == 0 {
		delete(r.byKey, b.key)
		return
	}
	r.byKey[b.key] = rest
}

func (r *directRouter) route(_ *message, key string, hit func(*binding)) {
	for _, b := range r.byKey[key] {
		hit(b)
	}
}

// listRouter hands the whole list of bindings to a choice: all of them for a
// fanout, one for the exchange types that spread messages.
type listRouter struct {
	list []*binding
	pick func(list []*binding, key string, hit func(*binding))
}

func (r *listRouter) add(b *binding)    { r.list = append(r.list, b) }
func (r *listRouter) remove(b *binding) { r.list = deleteBinding(r.list, b) }
func (r *listRouter) route(_ *message, key string, hit func(*binding)) {
	if len(r.list) > 0 {
		r.pick(r.list, key, hit)
	}
}

func everyBinding(list []*binding, _ string, hit func(*binding)) {
	for _, b := range list {
		hit(b)
	}
}

func (x *exchange) randomBinding(list []*binding, _ string, hit func(*binding)) {
	hit(list[x.vh.srv.rand.IntN(len(list))])
}

// hashedBinding picks by a hash of the key. RabbitMQ hashes with Erlang's
// phash2: which queue a key goes to differs, that it is always the same does not.
func hashedBinding(list []*binding, key string, hit func(*binding)) {
	h := fnv.New32a()
	h.Write([]byte(key))
	hit(list[int(h.Sum32()%uint32(len(list)))])
}

func deleteBinding(list []*binding, b *binding) []*binding {
	if i := slices.Index(list, b); i >= 0 {
		return slices.Delete(list, i, i+1)
	}
	return list
}

// addBinding adds b unless it exists, and reports whether it did not.
func (x *exchange) addBinding(b *binding) bool {
	if _, ok := x.bindings[b.id]; ok {
		return false
	}
	x.vh.srv.order++
	b.order = x.vh.srv.order
	x.bindings[b.id] = b
	x.router.add(b)
	if b.queue != nil {
		b.queue.bindings[b] = struct{}{}
	} else {
		b.dest.inbound[b] = struct{}{}
	}
	return true
}

// removeBinding removes b, and x itself when it is auto-delete and b was its last.
func (x *exchange) removeBinding(b *binding) {
	if x.bindings[b.id] != b {
		return
	}
	delete(x.bindings, b.id)
	x.router.remove(b)
	if b.queue != nil {
		delete(b.queue.bindings, b)
	} else {
		delete(b.dest.inbound, b)
	}
	if x.autoDelete && len(x.bindings) == 0 {
		x.vh.deleteExchange(x)
	}
}

// sortedBindings lists the bindings in the order they were made.
func (x *exchange) sortedBindings() []*binding {
	list := make([]*binding, 0, len(x.bindings))
	for _, b := range x.bindings {
		list = append(list, b)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].order < list[j].order })
	return list
}

// route collects the queues that a message published to x goes to, each once.
// The slice is valid until the next call.
func (vh *vhost) route(x *exchange, m *message) []*queue {
	srv := vh.srv
	srv.routing++
	srv.routed = srv.routed[:0]
	more := m.rest()
	if x.name == "" {
		srv.routeDefault(vh, m, m.key)
		for _, keys := range [2][]string{more.cc, more.bcc} {
			for _, key := range keys {
				srv.routeDefault(vh, m, key)
			}
		}
		return srv.routed
	}
	x.seen = srv.routing
	work := append(srv.work[:0], x)
	for i := 0; i < len(work); i++ {
		x := work[i]
		srv.work, srv.found = work, false
		x.router.route(m, m.key, srv.hit)
		for _, keys := range [2][]string{more.cc, more.bcc} {
			for _, key := range keys {
				x.router.route(m, key, srv.hit)
			}
		}
		work = srv.work
		if srv.found || x.alternate == "" {
			continue
		}
		if alt := vh.exchanges[x.alternate]; alt != nil && alt.seen != srv.routing {
			alt.seen = srv.routing
			work = append(work, alt)
		}
	}
	clear(work)
	srv.work = work[:0]
	return srv.routed
}

// routeDefault is the default exchange: the key is the name of a queue, or of
// a channel that waits for replies.
func (srv *Server) routeDefault(vh *vhost, m *message, key string) {
	if q := vh.queues[key]; q != nil {
		srv.addRouted(q)
	} else if isReplyName(key) {
		srv.deliverReply(vh, key, m)
	}
}

// hitBinding takes a binding that matches. It is srv.hit, made once: a function
// made for each message would be one more allocation.
func (srv *Server) hitBinding(b *binding) {
	srv.found = true
	if b.queue != nil {
		srv.addRouted(b.queue)
	} else if b.dest.seen != srv.routing {
		b.dest.seen = srv.routing
		srv.work = append(srv.work, b.dest)
	}
}

func (srv *Server) addRouted(q *queue) {
	if q.seen != srv.routing {
		q.seen = srv.routing
		srv.routed = append(srv.routed, q)
	}
}
