// Command tls connects over TLS and tells what was agreed on.
//
//	AMQP_URL=amqps://broker.example go run ./examples/tls -ca ca.pem
//	AMQP_URL=amqps://broker.example go run ./examples/tls -ca ca.pem -cert me.pem -key me-key.pem
//
// The broker's certificate is always checked, against the authorities in -ca or
// else the system's, and so is the name in it. With a certificate of its own
// the program logs in by that instead of a password: RabbitMQ's mechanism
// EXTERNAL, which its plugin rabbitmq_auth_mechanism_ssl provides.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"

	"github.com/warrenmq/warren/amqp"
)

func main() {
	log.SetFlags(0)
	var files amqp.TLSFiles
	flag.StringVar(&files.CA, "ca", "", "`file` of the authorities to trust")
	flag.StringVar(&files.Cert, "cert", "", "`file` of the client's certificate")
	flag.StringVar(&files.Key, "key", "", "`file` of the client's key")
	flag.Parse()
	uri := cmp.Or(os.Getenv("AMQP_URL"), "amqps://localhost")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, uri, files, os.Stdout); err != nil {
		log.Fatal(err)
	}
}

// run connects and sends a message to itself.
func run(ctx context.Context, uri string, files amqp.TLSFiles, out io.Writer) error {
	// The files are read at every dial, so that a renewed certificate is used
	// without a restart. A *tls.Config of one's own does as well: Config.TLS.
	cfg := &amqp.Config{TLSFiles: files}
	if files.Cert != "" {
		cfg.SASL = []amqp.SASL{amqp.SASLExternal()}
	}
	conn, err := amqp.Dial(ctx, uri, cfg)
	if err != nil {
		return err
	}
	defer conn.Close()
	ch, err := conn.Channel(ctx)
	if err != nil {
		return err
	}
	queue, err := ch.QueueDeclare(ctx, amqp.QueueDeclare{Exclusive: true})
	if err != nil {
		return err
	}
	if err := ch.Publish(ctx, amqp.BasicPublish{RoutingKey: queue.Queue}, amqp.Message{Body: []byte("for my eyes only")}); err != nil {
		return err
	}
	d, err := ch.Get(ctx, amqp.BasicGet{Queue: queue.Queue, NoAck: true})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "over TLS: %q\n", d.Body)
	return nil
}
