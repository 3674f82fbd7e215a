package amqp

//go:generate go run ../cmd/amqpgen -spec ../spec/amqp0-9-1.json -overlay ../spec/overlay.json -package amqp -o spec_gen.go -calls calls_gen.go
