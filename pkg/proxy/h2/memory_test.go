package h2

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// pair is a client's session and an endpoint's, idle, of one loop, and the
// encoders of their peers.
type pair struct {
	down, up *Session
}

// pairs makes n of them, each after so many requests.
func pairs(t testing.TB, n, requests int) []pair {
	pool := NewPool()
	now := time.Unix(1e9, 0)
	var made []pair
	for range n {
		rec := &recorder{streams: map[uint32]*Stream{}}
		made = append(made, pair{
			down: New(Config{Server: true, Pool: pool}, rec),
			up:   New(Config{Pool: pool}, rec),
		})
		client, server := newPeer(t, Config{Server: true}), newPeer(t, Config{})
		client.sess, server.sess = made[len(made)-1].down, made[len(made)-1].up
		client.out.WriteString(http2.ClientPreface)
		for _, p := range []*peer{client, server} {
			p.fr.WriteSettings()
			p.say()
			p.sess.Sent(len(p.sess.Output()), now)
		}
		for i := range requests {
			id := uint32(2*i + 1)
			client.headers(id, false, append(get, "user-agent a client of some length/1.0", "accept */*", "content-type application/grpc", "te trailers", fmt.Sprintf("grpc-timeout %dm", 900_000+i))...)
			client.fr.WriteData(id, true, make([]byte, 10_000))
			client.say()
			st := rec.streams[id]
			st.Release(10_000)
			up, err := made[len(made)-1].up.Open(append(getFields[:4:4], hpack.HeaderField{Name: "grpc-timeout", Value: fmt.Sprintf("%dm", 900_000+i)}), false)
			if err != nil {
				t.Fatal(err)
			}
			up.Write(make([]byte, 10_000), true)
			server.sess.Sent(len(server.sess.Output()), now)
			server.headers(id, false, ":status 200", "server of some name", "content-type application/json", fmt.Sprintf("etag value%d", i%50))
			server.fr.WriteData(id, true, make([]byte, 10_000))
			server.say()
			up.Release(10_000)
			up.Close(http2.ErrCodeNo)
			st.Headers(append(ok200[:1:1], hpack.HeaderField{Name: "etag", Value: fmt.Sprint("value", i%50)}), false)
			st.Write(make([]byte, 10_000), true)
			st.Close(http2.ErrCodeNo)
			client.sess.Sent(len(client.sess.Output()), now)
			// Small updates, so that windows never end.
			client.fr.WriteWindowUpdate(0, 10_000)
			client.say()
			server.fr.WriteWindowUpdate(0, 10_000)
			server.say()
		}
		rec.streams, rec.log = nil, nil
	}
	return made
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestIdleMemory: a pair of idle sessions stays below 24 KiB, after one request
// and after many whose fields that never repeat filled the peers' tables.
func TestIdleMemory(t *testing.T) {
	for _, test := range []struct{ n, requests int }{{1000, 1}, {100, 200}} {
		before := heap()
		kept := pairs(t, test.n, test.requests)
		each := (int64(heap()) - int64(before)) / int64(test.n)
		t.Logf("%d bytes for a pair after %d requests", each, test.requests)
		if each > 24<<10 || each <= 0 {
			t.Errorf("%d bytes for a pair after %d requests", each, test.requests)
		}
		for _, p := range kept {
			if p.down.Streams() != 0 || p.up.Streams() != 0 || len(p.down.Output()) > 0 {
				t.Fatal("not idle")
			}
		}
	}
}
