package health

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"connectd/pkg/lb"
)

// authority is a CA of the test's own.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	der := a.sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, a.key)
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return a
}

// sign signs with the CA's key, or makes the CA's own certificate before it
// has one.
func (a *authority) sign(t *testing.T, template *x509.Certificate, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent := a.cert
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// server starts an https server whose certificate is for name and, if ip is
// set, for 127.0.0.1. It answers 200, or 421 to a client that sent no name
// though the certificate has one.
func (a *authority) server(t *testing.T, name string, ip bool) netip.AddrPort {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{DNSNames: []string{name}}
	if ip {
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS.ServerName != name && !ip {
			w.WriteHeader(http.StatusMisdirectedRequest)
		}
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{a.sign(t, template, key)}, PrivateKey: key}}}
	s.StartTLS()
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(s.Listener.Addr().String())
}

func TestHTTPS(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	dir := t.TempDir()
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good, wrong, empty := file("ca.pem", ca.pem), file("other.pem", other.pem), file("empty.pem", nil)
	byIP, byName := ca.server(t, "orders.prod", true), ca.server(t, "orders.prod", false)
	plain := serve(t, answerWith("HTTP/1.1 200 OK\r\n\r\n"))
	silent := serve(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	p := newProtocols()
	for _, c := range []struct {
		name   string
		hc     lb.HealthCheck
		addr   netip.AddrPort
		result result
		reason string
	}{
		{"address in certificate", lb.HealthCheck{CAFile: good}, byIP, resultSuccess, "status 200"},
		{"name in certificate", lb.HealthCheck{CAFile: good, ServerName: "orders.prod"}, byName, resultSuccess, "status 200"},
		{"address not in certificate", lb.HealthCheck{CAFile: good}, byName, resultTLS, "tls: cannot validate certificate for 127.0.0.1"},
		{"other name", lb.HealthCheck{CAFile: good, ServerName: "payments.prod"}, byName, resultTLS,
			"tls: certificate is valid for orders.prod, not payments.prod"},
		{"other CA", lb.HealthCheck{CAFile: wrong}, byIP, resultTLS, "tls: certificate signed by unknown authority"},
		{"system's CAs", lb.HealthCheck{}, byIP, resultTLS, "tls: certificate signed by unknown authority"},
		{"insecure", lb.HealthCheck{InsecureSkipVerify: true, ServerName: "orders.prod"}, byName, resultSuccess, "status 200"},
		{"insecure with a missing CA", lb.HealthCheck{InsecureSkipVerify: true, CAFile: "/nonexistent"}, byIP, resultSuccess, "status 200"},
		{"missing CA file", lb.HealthCheck{CAFile: "/nonexistent"}, byIP, resultLocal, "read CA file: stat /nonexistent: no such file"},
		{"empty CA file", lb.HealthCheck{CAFile: empty}, byIP, resultLocal, "no certificate in it"},
		{"not TLS", lb.HealthCheck{InsecureSkipVerify: true}, plain, resultTLS, "tls: "},
		{"silent", lb.HealthCheck{InsecureSkipVerify: true, Timeout: 200 * time.Millisecond}, silent, resultTimeout,
			"timeout after 200ms in the TLS handshake"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.hc.Protocol, c.hc.Path = lb.CheckHTTPS, "/"
			want(t, probeOnce(t, p, c.hc, c.addr), c.result, c.reason)
		})
	}

	t.Run("CA file changes", func(t *testing.T) {
		path := filepath.Join(dir, "changing.pem")
		hc := lb.HealthCheck{Protocol: lb.CheckHTTPS, Path: "/", CAFile: path}
		// write puts content of one size and time there.
		write := func(name string, content []byte, size int, at int64) {
			t.Helper()
			padded := append(slices.Clone(content), bytes.Repeat([]byte("\n"), size-len(content))...)
			if err := os.Chtimes(file(name, padded), time.Time{}, time.Unix(at, 0)); err != nil {
				t.Fatal(err)
			}
		}
		write("changing.pem", other.pem, 2000, 1)
		want(t, probeOnce(t, p, hc, byIP), resultTLS, "unknown authority")
		write("changing.pem", ca.pem, 2001, 1)
		want(t, probeOnce(t, p, hc, byIP), resultSuccess, "status 200")
		write("changing.pem", other.pem, 2001, 2)
		want(t, probeOnce(t, p, hc, byIP), resultTLS, "unknown authority")
		write("next.pem", ca.pem, 2001, 2)
		if err := os.Rename(filepath.Join(dir, "next.pem"), path); err != nil {
			t.Fatal(err)
		}
		want(t, probeOnce(t, p, hc, byIP), resultSuccess, "status 200")
	})
}

func TestCACacheIsReusedAndBounded(t *testing.T) {
	var c caCache
	ca := newAuthority(t)
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, ca.pem, 0o600); err != nil {
		t.Fatal(err)
	}
	first, err := c.load(path)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := c.load(path); err != nil || again != first {
		t.Errorf("an unchanged file was read again: %v", err)
	}
	for range maxCAFiles + 10 {
		c.files[filepath.Join(path, time.Now().String())] = caFile{}
	}
	os.Chtimes(path, time.Time{}, time.Unix(1, 0))
	if again, err := c.load(path); err != nil || again == first || len(c.files) != 1 {
		t.Errorf("%d files kept, %v", len(c.files), err)
	}
}
