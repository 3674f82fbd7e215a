"""Serves a queue with pika: serve.py URL QUEUE. A body of digits is doubled, anything else is an error."""
import sys

import pika

url, queue = sys.argv[1:3]
connection = pika.BlockingConnection(pika.URLParameters(url))
channel = connection.channel()
channel.queue_declare(queue=queue)


def on_request(ch, method, props, body):
    headers, reply = {}, b""
    try:
        reply = str(2 * int(body)).encode()
    except ValueError:
        headers = {"rpc-error-code": "bad-request", "rpc-error-text": "not a number"}
    if props.headers and "rpc-timeout-ms" in props.headers:
        headers["saw-timeout"] = True
    ch.basic_publish(
        exchange="",
        routing_key=props.reply_to,
        properties=pika.BasicProperties(correlation_id=props.correlation_id, content_type="application/json", headers=headers),
        body=reply,
    )
    ch.basic_ack(method.delivery_tag)


channel.basic_qos(prefetch_count=1)
channel.basic_consume(queue, on_request)
print("ready", flush=True)
channel.start_consuming()
