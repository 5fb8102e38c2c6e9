package proxy

import (
	"io"
	"net/http"
	"testing"

	"connectd/pkg/testutil/h2spec"
)

// TestH2Spec runs the conformance suite h2spec against the forwarder as clients
// find it, how it tells HTTP/2 from HTTP/1 and ends connections included.
func TestH2Spec(t *testing.T) {
	w, _ := newH2World(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) // an answer could overtake what is wrong with the rest of a request
		w.Write([]byte("the page\n"))
	})
	// That is HTTP/1 to a listener of both, and answered so.
	h2spec.Run(t, w.vip, "Sends invalid connection preface")
}
