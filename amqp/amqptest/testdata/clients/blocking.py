"""pika's BlockingConnection, step by step; prints what it saw."""

import sys

import pika
from pika.exceptions import ChannelClosedByBroker, NackError, UnroutableError

params = pika.URLParameters(sys.argv[1])
connection = pika.BlockingConnection(params)
channel = connection.channel()

name = channel.queue_declare("", exclusive=True).method.queue
print("server-named", name.startswith("amq.gen-"))

channel.exchange_declare("topics", "topic", auto_delete=True)
channel.queue_bind(name, "topics", "a.*")
channel.confirm_delivery()
properties = pika.BasicProperties(content_type="text/plain", headers={"n": 1, "deep": {"list": [1, "two", True]}}, delivery_mode=2)
channel.basic_publish("topics", "a.b", b"hello", properties, mandatory=True)
method, header, body = channel.basic_get(name)
print("get", method.routing_key, method.redelivered, header.content_type, sorted(header.headers.items()), body)
channel.basic_nack(method.delivery_tag, requeue=True)
method, _, body = channel.basic_get(name)
print("again", method.redelivered, body)
channel.basic_ack(method.delivery_tag)
print("empty", channel.basic_get(name))

try:
    channel.basic_publish("topics", "z", b"lost", mandatory=True)
except UnroutableError as e:
    print("unroutable", e.messages[0].method.reply_code, e.messages[0].method.reply_text, e.messages[0].body)

channel.queue_declare("full", exclusive=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
channel.basic_publish("", "full", b"1")
try:
    channel.basic_publish("", "full", b"2")
except NackError as e:
    print("nacked", e.messages)

large = b"x" * 400000
channel.basic_publish("", name, large)
for i in range(20):
    channel.basic_publish("", name, b"%d" % i)
channel.basic_qos(prefetch_count=5)
seen = []
for method, header, body in channel.consume(name, inactivity_timeout=5):
    channel.basic_ack(method.delivery_tag)
    seen.append(body)
    if len(seen) == 21:
        break
print("consumed", seen[0] == large, b" ".join(seen[1:]))
print("requeued", channel.cancel())

try:
    channel.queue_declare("missing", passive=True)
except ChannelClosedByBroker as e:
    print("closed", e.reply_code, e.reply_text)

channel = connection.channel()
channel.queue_declare("doomed")
cancelled = []
channel.add_on_cancel_callback(lambda frame: cancelled.append(frame.method.consumer_tag))
channel.basic_consume("doomed", lambda *args: None, consumer_tag="mine")
other = pika.BlockingConnection(params)
other.channel().queue_delete("doomed")
while not cancelled:
    connection.process_data_events(time_limit=5)
print("cancelled", cancelled)

channel.tx_select()
channel.queue_declare("tx", exclusive=True)
channel.basic_publish("", "tx", b"1")
channel.tx_rollback()
channel.basic_publish("", "tx", b"2")
channel.tx_commit()
print("tx", channel.basic_get("tx", auto_ack=True)[2])

other.close()
connection.close()
print("closed", connection.is_closed)
