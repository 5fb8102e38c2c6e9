package proxy

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/summerwind/h2spec/config"
	"github.com/summerwind/h2spec/generic"
	h2hpack "github.com/summerwind/h2spec/hpack"
	h2http2 "github.com/summerwind/h2spec/http2"
	"github.com/summerwind/h2spec/spec"
)

// TestH2Spec runs the conformance suite h2spec against the forwarder as clients
// find it, how it tells HTTP/2 from HTTP/1 and ends connections included.
func TestH2Spec(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: h2spec waits for silence")
	}
	w, _ := newH2World(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) // an answer could overtake what is wrong with the rest of a request
		w.Write([]byte("the page\n"))
	})
	c := &config.Config{
		Host: w.vip.Addr().String(), Port: int(w.vip.Port()), Path: "/",
		Timeout: time.Second, MaxHeaderLen: 4000, Strict: true,
	}
	ran := 0
	for _, group := range []*spec.TestGroup{generic.Spec(), h2http2.Spec(), h2hpack.Spec()} {
		group.Test(c)
		ran += report(t, group)
	}
	if ran < 140 {
		t.Errorf("only %d cases ran", ran)
	}
}

func report(t *testing.T, group *spec.TestGroup) (ran int) {
	for _, test := range group.Tests {
		if test.Result == nil {
			continue
		}
		ran++
		if strings.HasPrefix(strings.TrimSpace(test.Desc), "Sends invalid connection preface") {
			continue // that is HTTP/1 to a listener of both, and answered so
		}
		if test.Result.Failed || test.Result.Skipped {
			t.Errorf("%s %s: %s: %v", group.ID(), group.Name, strings.TrimSpace(test.Desc), test.Result.Error)
		}
	}
	for _, sub := range group.Groups {
		ran += report(t, sub)
	}
	return ran
}
