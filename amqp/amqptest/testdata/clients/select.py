"""pika's SelectConnection: callbacks for confirms, returns, deliveries, cancel."""

import sys

import pika

COUNT = 50


class Run:
    def __init__(self, url):
        self.confirmed = set()
        self.nacked = 0
        self.published = 0
        self.received = []
        self.returned = []
        self.outcome = {}
        self.connection = pika.SelectConnection(
            pika.URLParameters(url),
            on_open_callback=self.opened,
            on_open_error_callback=self.failed,
            on_close_callback=self.closed,
        )

    def failed(self, connection, error):
        print("failed", error)
        connection.ioloop.stop()

    def opened(self, connection):
        connection.channel(on_open_callback=self.channel_opened)

    def channel_opened(self, channel):
        self.channel = channel
        channel.add_on_cancel_callback(self.cancelled)
        channel.add_on_return_callback(lambda ch, m, p, body: self.returned.append((m.reply_code, m.routing_key, body)))
        channel.confirm_delivery(self.confirm, callback=self.selected)

    def selected(self, frame):
        self.channel.queue_declare("work", callback=self.declared)

    def declared(self, frame):
        print("declared", frame.method.queue, frame.method.message_count, frame.method.consumer_count)
        self.channel.basic_qos(prefetch_count=7, callback=self.limited)

    def limited(self, frame):
        self.channel.basic_consume("work", self.message, consumer_tag="worker", callback=self.consuming)

    def consuming(self, frame):
        print("consuming", frame.method.consumer_tag)
        for i in range(COUNT):
            self.publish("work", str(i).encode())
        self.publish("nowhere", b"lost")

    def publish(self, key, body):
        self.published += 1
        self.channel.basic_publish("", key, body, pika.BasicProperties(delivery_mode=1), mandatory=True)

    def confirm(self, frame):
        method = frame.method
        tags = range(1, method.delivery_tag + 1) if method.multiple else [method.delivery_tag]
        if isinstance(method, pika.spec.Basic.Nack):
            self.nacked += len(tags)
        self.confirmed.update(tags)
        self.check()

    def message(self, channel, method, properties, body):
        self.received.append(int(body))
        if len(self.received) == 1 and not method.redelivered:
            self.received.pop()
            channel.basic_reject(method.delivery_tag, requeue=True)
            return
        channel.basic_ack(method.delivery_tag)
        self.check()

    def check(self):
        if len(self.confirmed) == COUNT + 1 and len(self.received) == COUNT:
            print("confirmed", len(self.confirmed), "nacked", self.nacked, "returned", self.returned)
            print("received", sorted(self.received) == list(range(COUNT)))
            self.confirmed.clear()
            self.channel.queue_delete("work", callback=self.deleted)

    def deleted(self, frame):
        self.outcome["deleted"] = frame.method.message_count
        self.gone()

    def cancelled(self, frame):
        self.outcome["cancelled"] = frame.method.consumer_tag
        self.gone()

    def gone(self):
        if len(self.outcome) < 2:  # which comes first is not said
            return
        print(sorted(self.outcome.items()))
        self.channel.queue_declare("elsewhere", passive=True)
        self.channel.add_on_close_callback(self.channel_closed)

    def channel_closed(self, channel, reason):
        print("channel closed", reason.reply_code, reason.reply_text)
        self.connection.close()

    def closed(self, connection, reason):
        print("closed", reason.reply_code)
        connection.ioloop.stop()


run = Run(sys.argv[1])
run.connection.ioloop.start()
