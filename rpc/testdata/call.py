"""Calls a server with pika, as RabbitMQ's tutorial does: call.py URL QUEUE BODY [CONTENT-TYPE]"""
import sys
import uuid

import pika

url, queue, body = sys.argv[1:4]
connection = pika.BlockingConnection(pika.URLParameters(url))
channel = connection.channel()
replies = []
channel.basic_consume("amq.rabbitmq.reply-to", lambda ch, method, props, text: replies.append((props, text)), auto_ack=True)
ident = str(uuid.uuid4())
channel.basic_publish(
    exchange="",
    routing_key=queue,
    properties=pika.BasicProperties(
        reply_to="amq.rabbitmq.reply-to",
        correlation_id=ident,
        content_type=sys.argv[4] if len(sys.argv) > 4 else None,
        headers={"rpc-timeout-ms": 20000},
    ),
    body=body,
)
connection.process_data_events(time_limit=20)
props, text = replies[0]
assert props.correlation_id == ident
headers = props.headers or {}
print(headers.get("rpc-error-code", "ok"), headers.get("rpc-error-text", ""), text.decode())
connection.close()
