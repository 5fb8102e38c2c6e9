package health

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"strings"
	"sync"
)

// getTLS is get over TLS, in HTTP/1.1.
func (x *exchange) getTLS(ctx context.Context, cas *caCache) outcome {
	config := &tls.Config{
		ServerName:         x.ServerName,
		InsecureSkipVerify: x.InsecureSkipVerify,
		NextProtos:         []string{"http/1.1"},
	}
	if config.ServerName == "" {
		config.ServerName = x.addr.Addr().String()
	}
	if x.CAFile != "" && !x.InsecureSkipVerify {
		pool, err := cas.load(x.CAFile)
		if err != nil {
			return outcome{resultLocal, short(err.Error())}
		}
		config.RootCAs = pool
	}
	conn := tls.Client(x.conn, config)
	defer conn.Close() // says close_notify: a bare FIN would be logged as an error by some servers
	if err := conn.HandshakeContext(ctx); err != nil {
		if isTimeout(ctx, err) {
			return x.failure(ctx, resultTLS, "in the TLS handshake", err)
		}
		return outcome{resultTLS, short(tlsReason(err))}
	}
	return x.get(ctx, conn)
}

// tlsReason says "tls: certificate is valid for a, not b" rather than the
// three prefixes that crypto/tls and crypto/x509 put before it.
func tlsReason(err error) string {
	s := cause(err)
	for _, prefix := range []string{"tls: ", "failed to verify certificate: ", "x509: "} {
		s = strings.TrimPrefix(s, prefix)
	}
	return "tls: " + s
}

// maxCAFiles bounds what a caCache keeps: files of services long gone are
// forgotten, all at once, when it is full.
const maxCAFiles = 256

// caCache keeps parsed CA files. The zero value is ready to use.
type caCache struct {
	mu    sync.Mutex
	files map[string]caFile
}

type caFile struct {
	info os.FileInfo
	pool *x509.CertPool
}

// load returns the certificates of a PEM file, read again when it changed.
func (c *caCache) load(path string) (*x509.CertPool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read CA file: %s", err)
	}
	if f, ok := c.files[path]; ok && os.SameFile(f.info, info) &&
		f.info.ModTime().Equal(info.ModTime()) && f.info.Size() == info.Size() {
		return f.pool, nil
	}
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read CA file: %s", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read CA file %s: no certificate in it", path)
	}
	if c.files == nil || len(c.files) >= maxCAFiles {
		c.files = make(map[string]caFile)
	}
	c.files[path] = caFile{info: info, pool: pool}
	return pool, nil
}
