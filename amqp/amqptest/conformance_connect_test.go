package amqptest_test

import "strings"

// connect NAME [user=] [password=] [vhost=] [mechanism=] [response=]
// [frame-max=] [channel-max=] [heartbeat=] [caps={}]: opens a connection. What
// ends the handshake early is left as the step's answer.
func (r *caseRun) connect(sc *scanner) {
	name := sc.word("")
	text := map[string]string{"user": "guest", "password": "guest", "vhost": "/", "mechanism": "PLAIN", "locale": "en_US"}
	num := map[string]int64{"frame-max": 131072, "channel-max": 2047, "heartbeat": 0}
	caps := tableValue{}
	for _, k := range []string{"consumer_cancel_notify", "basic.nack", "publisher_confirms", "authentication_failure_close", "connection.blocked", "exchange_exchange_bindings"} {
		caps = append(caps, tableField{k, tagged{'t', true}})
	}
	response, given := "", false
	for sc.space(); sc.s != ""; sc.space() {
		key := sc.word("=")
		sc.want('=')
		switch {
		case key == "caps":
			caps = sc.table()
		case key == "response":
			response, given = sc.text(""), true
		case text[key] != "":
			text[key] = sc.text("")
		case num[key] != 0 || key == "heartbeat":
			num[key] = sc.int()
		default:
			sc.failf("connect knows no %q", key)
		}
	}
	if !given {
		response = saslResponse(text["mechanism"], text["user"], text["password"])
	}
	c := r.dialRaw(name)
	c.write([]byte("AMQP\x00\x00\x09\x01"))
	props := tableValue{{"capabilities", tagged{'F', caps}}, {"product", tagged{'S', "conformance"}}}
	call := func(method string, a args) { c.send(0, spec().byName[method], a, nil, "", false) }
	if r.expect(c, 0, "connection.start") == nil {
		return
	}
	call("connection.start-ok", args{"client-properties": props, "mechanism": text["mechanism"], "response": response, "locale": text["locale"]})
	if r.expect(c, 0, "connection.tune") == nil {
		return
	}
	call("connection.tune-ok", args{"channel-max": num["channel-max"], "frame-max": num["frame-max"], "heartbeat": num["heartbeat"]})
	call("connection.open", args{"virtual-host": text["vhost"]})
	if num["frame-max"] > 0 {
		c.frameMax = int(num["frame-max"])
	}
	r.expect(c, 0, "connection.open-ok")
}

func saslResponse(mechanism, user, password string) string {
	if mechanism == "AMQPLAIN" {
		t := appendTableValue(nil, tableValue{{"LOGIN", tagged{'S', user}}, {"PASSWORD", tagged{'S', password}}})
		return string(t[4:])
	}
	return strings.Join([]string{"", user, password}, "\x00")
}

// dialRaw opens a stream and says nothing on it.
func (r *caseRun) dialRaw(name string) *rawConn {
	nc, err := r.dial()
	if err != nil {
		panic(scriptError("dial: " + err.Error()))
	}
	c := newRawConn(nc, r.wake)
	r.conns[name] = c
	return c
}
