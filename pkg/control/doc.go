// Package control is the daemon's API on a unix socket: the wire types, the
// server that answers with what a Backend knows, and the client.
//
// It is HTTP with JSON bodies, for root on the same host: the socket has mode
// 0600. Field names are stable; a client ignores those it does not know.
//
//	GET  /v1/status
//	GET  /v1/services?service=&namespace=
//	GET  /v1/endpoints?service=&state=
//	GET  /v1/resolve?name=&task=
//	GET  /v1/events?after=&wait=&task=&kind=
//	GET  /v1/connections?task=&service=
//	GET  /v1/tasks
//	POST /v1/drain, /v1/undrain  {"service": "prod/orders", "address": "10.0.3.9:8080"}
//	POST /v1/reload
//	POST /v1/off, /v1/on
package control
