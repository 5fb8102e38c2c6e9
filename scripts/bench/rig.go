package main

import (
	"context"
	"errors"
	"fmt"
)

// rig is what is measured: a daemon whose one client is in the client's
// namespace, and an HTTP server in the other.
type rig struct {
	world
	node   *node
	client *peer
	server *peer
}

func newRig(ctx context.Context, binary string) (*rig, error) {
	r := &rig{}
	err := r.open(ctx, binary)
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

func (r *rig) open(ctx context.Context, binary string) (err error) {
	if r.world, err = newWorld(ctx); err != nil {
		return err
	}
	if r.node, err = newNode(binary, r.world); err != nil {
		return err
	}
	if r.client, err = startPeer(r.netns("client")); err != nil {
		return err
	}
	if r.server, err = startPeer(r.netns("server")); err != nil {
		return err
	}
	_, err = r.server.do(order{Serve: fmt.Sprintf("%s:%d", serverAddress, httpPort)})
	return err
}

func (r *rig) close() error {
	for _, p := range []*peer{r.client, r.server} {
		if p != nil {
			p.close()
		}
	}
	var err error
	if r.node != nil {
		err = r.node.close()
	}
	return errors.Join(err, r.world.close())
}
