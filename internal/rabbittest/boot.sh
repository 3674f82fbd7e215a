# Runs as process 1 of a test broker, in place of the image's entry point.
#
# It writes the files that the test handed over in the environment, and keeps a
# server running: one that stops is started again, unless /tmp/warren-hold says
# otherwise. So a test can stop, kill and start the server while the container
# lives on with its ports and its data. It ends with SIGTERM, and by itself
# after WARREN_EXPIRE seconds, whatever became of the test.
set -eu

# Erlang walks every possible descriptor as it starts. Some Docker engines allow
# a billion of them, which takes minutes.
[ "$(ulimit -n)" != unlimited ] && [ "$(ulimit -n)" -le 65536 ] || ulimit -n 65536 || true

put() { # put FILE CONTENT
	mkdir -p "${1%/*}"
	printf '%s' "$2" >"$1"
}
put /etc/rabbitmq/conf.d/90-test.conf "$WARREN_CONF"
put /etc/rabbitmq/advanced.config "$WARREN_ADVANCED"
put /etc/rabbitmq/enabled_plugins "$WARREN_PLUGINS"
put /etc/rabbitmq/certs/ca.pem "$WARREN_CA"
put /etc/rabbitmq/certs/cert.pem "$WARREN_CERT"
put /etc/rabbitmq/certs/key.pem "$WARREN_KEY"
chown -R rabbitmq:rabbitmq /var/lib/rabbitmq /etc/rabbitmq
expire=$WARREN_EXPIRE
unset WARREN_CONF WARREN_ADVANCED WARREN_PLUGINS WARREN_CA WARREN_CERT WARREN_KEY WARREN_EXPIRE

finish() {
	trap '' TERM
	kill -KILL -1 2>/dev/null || true
	exit 0
}
trap finish TERM
(sleep "$expire" && kill -TERM 1) &

while :; do
	docker-entrypoint.sh rabbitmq-server &
	wait $! || true
	if [ ! -e /tmp/warren-ready ]; then
		# It never came up. Say why, and stay long enough to be read.
		cat /var/log/rabbitmq/startup_* 2>/dev/null || true
		echo 'warren: the server ended before it was ready'
		sleep 30
		finish
	fi
	sleep 0.2
	while [ -e /tmp/warren-hold ]; do sleep 0.1; done
done
