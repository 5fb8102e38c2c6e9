package file

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"time"

	"connectd/pkg/catalog"
	"connectd/pkg/strictyaml"
)

// restless is how old a file's times must be for another change to show in
// them: kernels before 6.13 count them in ticks of up to 10 ms.
const restless = 20 * time.Millisecond

// identity tells one content of a file from another without reading it.
type identity struct {
	dev, ino     uint64
	size         int64
	mtime, ctime syscall.Timespec
}

func identify(info fs.FileInfo) identity {
	st := info.Sys().(*syscall.Stat_t)
	return identity{st.Dev, st.Ino, st.Size, st.Mtim, st.Ctim}
}

// settled reports whether a change at now or later makes another identity.
func (id identity) settled(now time.Time) bool {
	return now.Sub(time.Unix(id.ctime.Unix())) > restless
}

// reading is one file being read.
type reading struct {
	file    *catalogFile
	match   match
	id      identity
	entries []catalog.Entry
	errs    strictyaml.Errors
	again   bool // it changed or went while it was read: nothing is known
}

func (r *reading) run(d Decoder) {
	now := time.Now()
	data, id, err := readFile(r.match)
	if errors.Is(err, errUnsteady) {
		r.again = true
		return
	}
	if err == nil {
		if id.settled(now) {
			r.id = id
		}
		r.entries, err = d.Decode(r.match.path, data)
	}
	if err != nil && !errors.As(err, &r.errs) {
		var one *strictyaml.Error
		if !errors.As(err, &one) {
			one = strictyaml.Origin{File: r.match.path}.Errorf("%s", err)
		}
		r.errs = strictyaml.Errors{one}
	}
}

var errUnsteady = errors.New("the file changed while it was read")

func readFile(m match) ([]byte, identity, error) {
	f, err := strictyaml.Open(m.path, m.real)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, identity{}, errUnsteady
	}
	if err != nil {
		return nil, identity{}, err
	}
	defer f.Close()
	before, err := f.Stat()
	if err != nil {
		return nil, identity{}, err
	}
	data, err := strictyaml.Read(m.path, f)
	if err != nil {
		return nil, identity{}, err
	}
	after, err := f.Stat()
	if err != nil {
		return nil, identity{}, err
	}
	if identify(before) != identify(after) {
		return nil, identity{}, errUnsteady
	}
	return data, identify(after), nil
}

// checkCA reports why a PEM file cannot be used as root certificates.
func checkCA(path string) error {
	data, err := strictyaml.ReadFile(path)
	var e *strictyaml.Error
	if errors.As(err, &e) {
		return errors.New(e.Detail)
	}
	if err != nil {
		return err
	}
	if !x509.NewCertPool().AppendCertsFromPEM(data) {
		return fmt.Errorf("has no certificate in PEM")
	}
	return nil
}
