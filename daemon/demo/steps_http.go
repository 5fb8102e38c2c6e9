package demo

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// requests shows a service that speaks HTTP: a try that fails is made again
// elsewhere if that can do no harm, and the client does not notice.
func (d *demo) requests(ctx context.Context) error {
	const count = 60
	a := d.serve.api["a"]
	a.flaky.Store(true)
	defer a.flaky.Store(false)
	gets, err := d.askCart(ctx, count)
	if err != nil {
		return err
	}
	d.Say("%d GETs over one connection, while a answers every other request with 503", count)
	d.Say("  curl saw %d x 200, by %s; servers got %d tries, of which a refused %d",
		gets.ok, counts(gets.byServer), gets.tries, gets.refused)
	if gets.ok != count || gets.failed != 0 || len(gets.byServer) != 2 {
		return fmt.Errorf("curl saw %d other answers, and both servers should have answered", gets.failed)
	}
	if gets.refused < count/8 || gets.tries != count+gets.refused {
		return errors.New("not every refused try was made once more")
	}
	posts, err := d.askCart(ctx, count, "-d", "order=1")
	if err != nil {
		return err
	}
	d.Say("%d POSTs, which may not be made twice", count)
	d.Say("  curl saw %d x 200 and %d x 503; servers got %d tries, of which a refused %d", posts.ok, posts.failed, posts.tries, posts.refused)
	if posts.tries != count || posts.refused == 0 || posts.failed != posts.refused {
		return errors.New("a POST was made again, or its answer is not the client's")
	}
	return nil
}

// asked is what became of requests to cart, as curl and as the servers saw it.
type asked struct {
	ok, failed     int // answers
	byServer       map[string]int
	tries, refused int
}

// askCart sends requests to cart with curl, over one connection.
func (d *demo) askCart(ctx context.Context, count int, options ...string) (r asked, err error) {
	tries, refused := d.cartTries()
	text, err := d.world.web.output(ctx, "curl", append(options, "-sS", "-w", "%{http_code}\n", fmt.Sprintf("http://cart/[1-%d]", count))...)
	if err != nil {
		return r, err
	}
	r.byServer = map[string]int{}
	for line := range strings.Lines(text) {
		switch line = strings.TrimSpace(line); {
		case line == "200":
			r.ok++
		case line == "503":
			r.failed++
		case strings.HasPrefix(line, "a ") || strings.HasPrefix(line, "b "):
			r.byServer[firstWord(line)]++
		}
	}
	if r.ok+r.failed != count {
		return r, fmt.Errorf("curl saw %d answers to %d requests", r.ok+r.failed, count)
	}
	r.tries, r.refused = d.cartTries()
	r.tries -= tries
	r.refused -= refused
	return r, nil
}

// cartTries is how many requests to cart the servers have seen, and refused.
func (d *demo) cartTries() (tries, refused int) {
	for _, s := range d.serve.api {
		tries += int(s.tries.Load())
		refused += int(s.refused.Load())
	}
	return tries, refused
}
