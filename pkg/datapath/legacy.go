package datapath

import "iter"

// connections walks every tracked connection. When bpf/lib/legacy.h reads an
// older layout, its entries are walked here too, decoded into today's.
func (d *Datapath) connections() iter.Seq2[entry[uint64, connectConnection], error] {
	return all[uint64, connectConnection](d.objs.ConnectionsV1)
}
