/* The rabbitmq-c peer of amqpbench: one blocking connection, one thread, the library used as its examples do.
 * Arguments: see Command in ../crabbit.go. Prints a result as the Go peers do. */
#define _GNU_SOURCE
#include <amqp.h>
#include <amqp_framing.h>
#include <amqp_tcp_socket.h>
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <time.h>

static struct {
	const char *workload, *host, *user, *pass, *vhost, *queue, *warm_queue;
	int port, body, headers, window, no_ack, ack_every, prefetch, null;
	int64_t count, duration, warm;
} opt;

/* Latencies: the same buckets as Go's package hist. */
enum { SUB = 64, SUB_BITS = 6, BUCKETS = SUB * (64 - SUB_BITS) };
static uint64_t buckets[BUCKETS], latency_sum;
static int has_latency;

static void fail(const char *fmt, ...) {
	char text[512];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	for (char *p = text; *p; p++)
		if (*p == '"' || *p == '\\' || *p < ' ') *p = '\'';
	printf("{\"version\":\"%s\",\"error\":\"%s\"}\n", amqp_version(), text);
	exit(0);
}

static int64_t now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void add_latency(int64_t ns) {
	uint64_t v = ns < 0 ? 0 : (uint64_t)ns;
	int at = (int)v;
	if (v >= SUB) {
		int exp = 63 - __builtin_clzll(v) - SUB_BITS;
		at = (exp + 1) * SUB + (int)((v >> exp) & (SUB - 1));
	}
	buckets[at]++;
	latency_sum += v;
}

static void must(int status, const char *what) {
	if (status < 0) fail("%s: %s", what, amqp_error_string2(status));
}

static void must_reply(amqp_connection_state_t c, const char *what) {
	amqp_rpc_reply_t r = amqp_get_rpc_reply(c);
	if (r.reply_type == AMQP_RESPONSE_NORMAL) return;
	if (r.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION) fail("%s: %s", what, amqp_error_string2(r.library_error));
	fail("%s: closed by the server (method %u)", what, r.reply.id);
}

static amqp_connection_state_t dial(void) {
	amqp_connection_state_t c = amqp_new_connection();
	amqp_socket_t *s = amqp_tcp_socket_new(c);
	if (!s) fail("no socket");
	must(amqp_socket_open(s, opt.host, opt.port), "connect");
	amqp_rpc_reply_t r = amqp_login(c, opt.vhost, AMQP_DEFAULT_MAX_CHANNELS, AMQP_DEFAULT_FRAME_SIZE, 0,
	                                AMQP_SASL_METHOD_PLAIN, opt.user, opt.pass);
	if (r.reply_type != AMQP_RESPONSE_NORMAL) fail("login failed");
	return c;
}

static void hang_up(amqp_connection_state_t c) {
	amqp_connection_close(c, AMQP_REPLY_SUCCESS);
	amqp_destroy_connection(c);
}

static void open_channel(amqp_connection_state_t c, int id) {
	amqp_channel_open(c, id);
	must_reply(c, "channel.open");
}

/* The measured part. */
static int64_t wall0, user0, sys0;

static void cpu(int64_t *user, int64_t *sys) {
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	*user = u.ru_utime.tv_sec * INT64_C(1000000000) + u.ru_utime.tv_usec * INT64_C(1000);
	*sys = u.ru_stime.tv_sec * INT64_C(1000000000) + u.ru_stime.tv_usec * INT64_C(1000);
}

static void start(void) {
	memset(buckets, 0, sizeof buckets);
	latency_sum = 0;
	cpu(&user0, &sys0);
	wall0 = now();
}

static void stop(int64_t n) {
	int64_t wall = now() - wall0, user, sys;
	cpu(&user, &sys);
	printf("{\"version\":\"%s\",\"messages\":%lld,\"wall_ns\":%lld,\"user_ns\":%lld,\"sys_ns\":%lld,\"no_allocs\":true",
	       amqp_version(), (long long)n, (long long)wall, (long long)(user - user0), (long long)(sys - sys0));
	if (has_latency) {
		const char *comma = "";
		printf(",\"latency\":{\"sum\":%llu,\"buckets\":[", (unsigned long long)latency_sum);
		for (int i = 0; i < BUCKETS; i++)
			if (buckets[i]) {
				printf("%s[%d,%llu]", comma, i, (unsigned long long)buckets[i]);
				comma = ",";
			}
		printf("]}");
	}
	printf("}\n");
	exit(0); /* the system takes the connection down */
}

/* How many fit into the duration: as calibrate in ../../bench/run.go. */
static int64_t calibrate(void (*run)(int64_t n, int warm)) {
	if (opt.count > 0) {
		if (opt.warm > 0) run(opt.warm, 1);
		return opt.count;
	}
	int64_t n = 16, want = opt.duration > 0 ? opt.duration : 300000000;
	for (;;) {
		int64_t begin = now();
		run(n, 1);
		int64_t took = now() - begin;
		if (took >= want / 5) {
			begin = now();
			run(n, 1);
			if (now() - begin < took) took = now() - begin;
		}
		if (took >= want / 5) return (int64_t)((double)n * want / took) + 2;
		double grow = want / 4.0 / (took > 1000 ? took : 1000);
		n = (int64_t)(n * fmin(fmax(grow, 1.5), 8)) + 1;
	}
}

static amqp_connection_state_t conn;
static amqp_bytes_t body;
static amqp_basic_properties_t props;
static amqp_table_entry_t entries[5];

static void entry(int i, const char *key, amqp_field_value_t v) {
	entries[i].key = amqp_cstring_bytes(key);
	entries[i].value = v;
}

static void make_message(void) {
	body.len = opt.body;
	body.bytes = malloc(opt.body + 1);
	for (int i = 0; i < opt.body; i++) ((char *)body.bytes)[i] = 'a' + i % 26;
	props._flags = AMQP_BASIC_DELIVERY_MODE_FLAG;
	props.delivery_mode = 1;
	if (!opt.headers) return;
	amqp_field_value_t s = {.kind = AMQP_FIELD_KIND_UTF8}, i32 = {.kind = AMQP_FIELD_KIND_I32, .value.i32 = 3};
	amqp_field_value_t b = {.kind = AMQP_FIELD_KIND_BOOLEAN, .value.boolean = 1}, i64 = {.kind = AMQP_FIELD_KIND_I64, .value.i64 = 1024};
	s.value.bytes = amqp_cstring_bytes("blue");
	entry(0, "tenant", s);
	s.value.bytes = amqp_cstring_bytes("4bf92f3577b34da6a3ce929d0e0e4736");
	entry(1, "trace-id", s);
	entry(2, "attempt", i32);
	entry(3, "sampled", b);
	entry(4, "bytes", i64);
	props._flags |= AMQP_BASIC_HEADERS_FLAG;
	props.headers.num_entries = opt.headers < 5 ? opt.headers : 5;
	props.headers.entries = entries;
}

static void sync_with(amqp_connection_state_t c) {
	amqp_queue_declare(c, 1, amqp_cstring_bytes(opt.queue), 1, 0, 0, 0, amqp_empty_table);
	must_reply(c, "passive declare");
}

/* publish */

static uint64_t sent, acked;

static void await_acks(uint64_t tag) {
	while (acked < tag) {
		amqp_frame_t f;
		amqp_maybe_release_buffers(conn);
		must(amqp_simple_wait_frame(conn, &f), "wait for a confirm");
		if (f.frame_type != AMQP_FRAME_METHOD) continue;
		if (f.payload.method.id != AMQP_BASIC_ACK_METHOD) fail("method %x in place of a confirm", f.payload.method.id);
		amqp_basic_ack_t *a = f.payload.method.decoded;
		if (a->delivery_tag > acked) acked = a->delivery_tag;
	}
}

static void publish(int64_t n, int warm) {
	amqp_bytes_t key = amqp_cstring_bytes(opt.queue);
	for (int64_t i = 0; i < n; i++) {
		if (opt.window > 1 && sent + 1 > acked + opt.window) await_acks(sent + 1 - opt.window);
		int64_t begin = opt.window == 1 ? now() : 0;
		must(amqp_basic_publish(conn, 1, amqp_empty_bytes, key, 0, 0, &props, body), "publish");
		sent++;
		if (opt.window == 1) {
			await_acks(sent);
			add_latency(now() - begin);
		}
	}
	if (opt.window) await_acks(sent);
	sync_with(conn);
}

static void run_publish(void) {
	conn = dial();
	open_channel(conn, 1);
	if (!opt.null) {
		amqp_queue_declare(conn, 1, amqp_cstring_bytes(opt.queue), 0, 1, 0, 0, amqp_empty_table);
		must_reply(conn, "declare");
	}
	if (opt.window) {
		amqp_confirm_select(conn, 1);
		must_reply(conn, "confirm.select");
		has_latency = opt.window == 1;
	}
	int64_t n = calibrate(publish);
	if (!opt.null) {
		amqp_queue_purge(conn, 1, amqp_cstring_bytes(opt.queue));
		must_reply(conn, "purge");
	}
	start();
	publish(n, 0);
	stop(n);
}

/* consume */

static void consume(int64_t n, int warm) {
	static int id;
	char queue[128];
	id++;
	open_channel(conn, id);
	if (opt.null) snprintf(queue, sizeof queue, "blast.%lld", (long long)n);
	else snprintf(queue, sizeof queue, "%s", warm ? opt.warm_queue : opt.queue);
	if (!warm) start();
	if (opt.prefetch) {
		amqp_basic_qos(conn, id, 0, opt.prefetch, 0);
		must_reply(conn, "qos");
	}
	amqp_basic_consume(conn, id, amqp_cstring_bytes(queue), amqp_empty_bytes, 0, opt.no_ack, 0, amqp_empty_table);
	must_reply(conn, "consume");
	int pending = 0;
	for (int64_t i = 0; i < n; i++) {
		amqp_envelope_t e;
		amqp_maybe_release_buffers(conn);
		amqp_rpc_reply_t r = amqp_consume_message(conn, &e, NULL, 0);
		if (r.reply_type != AMQP_RESPONSE_NORMAL) fail("consume: %s after %lld", amqp_error_string2(r.library_error), (long long)i);
		if (!opt.no_ack && (++pending >= opt.ack_every || i == n - 1)) {
			must(amqp_basic_ack(conn, id, e.delivery_tag, pending > 1), "ack");
			pending = 0;
		}
		amqp_destroy_envelope(&e);
	}
	amqp_channel_close(conn, id, AMQP_REPLY_SUCCESS);
}

static void run_consume(void) {
	conn = dial();
	int64_t n = calibrate(consume);
	consume(n, 0);
	stop(n);
}

/* rpc, one at a time, over direct reply-to */

static void calls(int64_t n, int warm) {
	for (int64_t i = 0; i < n; i++) {
		char id[24];
		int64_t begin = now();
		snprintf(id, sizeof id, "%lld", (long long)i);
		props._flags |= AMQP_BASIC_CORRELATION_ID_FLAG | AMQP_BASIC_REPLY_TO_FLAG;
		props.correlation_id = amqp_cstring_bytes(id);
		props.reply_to = amqp_cstring_bytes("amq.rabbitmq.reply-to");
		must(amqp_basic_publish(conn, 1, amqp_empty_bytes, amqp_cstring_bytes(opt.queue), 0, 0, &props, body), "publish");
		amqp_envelope_t e;
		amqp_maybe_release_buffers(conn);
		amqp_rpc_reply_t r = amqp_consume_message(conn, &e, NULL, 0);
		if (r.reply_type != AMQP_RESPONSE_NORMAL) fail("reply: %s", amqp_error_string2(r.library_error));
		amqp_destroy_envelope(&e);
		add_latency(now() - begin);
	}
}

static void run_rpc(void) {
	conn = dial();
	open_channel(conn, 1);
	amqp_basic_consume(conn, 1, amqp_cstring_bytes("amq.rabbitmq.reply-to"), amqp_empty_bytes, 0, 1, 0, amqp_empty_table);
	must_reply(conn, "consume replies");
	has_latency = 1;
	int64_t n = calibrate(calls);
	start();
	calls(n, 0);
	stop(n);
}

/* open and close */

static void connections(int64_t n, int warm) {
	for (int64_t i = 0; i < n; i++) {
		int64_t begin = now();
		hang_up(dial());
		add_latency(now() - begin);
	}
}

static void channels(int64_t n, int warm) {
	for (int64_t i = 0; i < n; i++) {
		int64_t begin = now();
		open_channel(conn, 1);
		amqp_channel_close(conn, 1, AMQP_REPLY_SUCCESS);
		amqp_maybe_release_buffers(conn);
		add_latency(now() - begin);
	}
}

static void run_timed(void (*f)(int64_t, int)) {
	has_latency = 1;
	int64_t n = calibrate(f);
	start();
	f(n, 0);
	stop(n);
}

int main(int argc, char **argv) {
	if (argc != 18) fail("17 arguments, not %d", argc - 1);
	opt.workload = argv[1], opt.host = argv[2], opt.port = atoi(argv[3]), opt.user = argv[4], opt.vhost = argv[5];
	opt.body = atoi(argv[6]), opt.headers = atoi(argv[7]), opt.window = atoi(argv[8]), opt.no_ack = atoi(argv[9]);
	opt.ack_every = atoi(argv[10]), opt.prefetch = atoi(argv[11]), opt.count = atoll(argv[12]);
	opt.duration = atoll(argv[13]), opt.warm = atoll(argv[14]), opt.queue = argv[15], opt.warm_queue = argv[16];
	opt.null = atoi(argv[17]);
	opt.pass = getenv("AMQPBENCH_PASSWORD");
	if (!*opt.queue) opt.queue = "bench";
	make_message();
	if (!strcmp(opt.workload, "publish")) run_publish();
	if (!strcmp(opt.workload, "consume")) run_consume();
	if (!strcmp(opt.workload, "rpc")) run_rpc();
	if (!strcmp(opt.workload, "connection")) run_timed(connections);
	if (!strcmp(opt.workload, "channel")) {
		conn = dial();
		run_timed(channels);
	}
	fail("no workload %s", opt.workload);
}
