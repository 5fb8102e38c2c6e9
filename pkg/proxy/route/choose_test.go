package route

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"testing"

	"connectd/pkg/lb"
	"connectd/pkg/plan"
)

var policies = []lb.Policy{lb.RoundRobin, lb.LeastConnections, lb.Random, lb.SourceHash}

// picks counts what n first choices of a task with each hash key fall on.
func picks(r *Route, n int, task *plan.Task) map[lb.EndpointID]int {
	c := &Choice{Task: task, Rand: seeded()}
	got := make(map[lb.EndpointID]int)
	for i := range n {
		if r.LoadBalancing.Policy == lb.SourceHash {
			task.HashKey = uint32(i)
		}
		e, _ := r.Choose(c)
		got[e.ID]++
	}
	return got
}

// TestChooseWeights: shares are those of the slot table, with every policy and
// also where all endpoints are avoided.
func TestChooseWeights(t *testing.T) {
	endpoints := []plan.Endpoint{endpoint(1, 1), endpoint(2, 3), endpoint(3, 6)}
	for _, policy := range policies {
		for _, avoid := range [][]lb.EndpointID{nil, {1, 2, 3}} {
			t.Run(fmt.Sprint(policy, len(avoid)), func(t *testing.T) {
				_, r := routed1(policy, endpoints...)
				const n = 30000
				got := picks(r, n, &plan.Task{Avoid: avoid})
				for _, e := range endpoints {
					want := n * int(e.Weight) / 10
					slack := 0.0
					if policy == lb.Random || policy == lb.LeastConnections {
						slack = 5 * math.Sqrt(float64(want)) // five sigma, and the same numbers on every run
					}
					if math.Abs(float64(got[e.ID]-want)) > slack {
						t.Errorf("endpoint %d of weight %d: %d of %d", e.ID, e.Weight, got[e.ID], n)
					}
				}
			})
		}
	}
}

// TestChooseRoundRobin: the slots one after the other, whoever asks.
func TestChooseRoundRobin(t *testing.T) {
	_, r := routed1(lb.RoundRobin, endpoint(1, 2), endpoint(2, 1), endpoint(3, 1))
	tasks := []*plan.Task{{ID: 1}, {ID: 2}}
	want := []lb.EndpointID{1, 2, 3, 1} // the turn after slot 0
	for i := range 4 * len(want) {
		e, fresh := r.Choose(&Choice{Task: tasks[i%2]})
		if e.ID != want[i%len(want)] || !fresh {
			t.Fatalf("choice %d is endpoint %d, fresh %v", i, e.ID, fresh)
		}
	}
}

// TestChooseSourceHash: a task's endpoint is its slot, over requests, routes
// and tables.
func TestChooseSourceHash(t *testing.T) {
	endpoints := []plan.Endpoint{endpoint(1, 1), endpoint(2, 2), endpoint(3, 4)}
	_, a := routed1(lb.SourceHash, endpoints...)
	_, b := routed1(lb.SourceHash, endpoints...)
	for key := range uint32(1000) {
		task := &plan.Task{HashKey: key * 0x9e3779b9}
		want := a.SlotsV4[task.HashKey%uint32(len(a.SlotsV4))]
		for _, r := range []*Route{a, a, b} {
			if e, _ := r.Choose(&Choice{Task: task}); e.ID != want {
				t.Fatalf("key %d: endpoint %d, want %d", task.HashKey, e.ID, want)
			}
		}
	}
}

// TestChooseLeastConnections: of two slots the endpoint with fewer requests for
// its weight.
func TestChooseLeastConnections(t *testing.T) {
	const n = 10000
	for _, c := range []struct {
		name    string
		weights [2]int
		load    [2]int64
		want    float64 // share of the first endpoint
	}{
		// The busier one is taken when both looks fall on it.
		{"first is busier", [2]int{1, 1}, [2]int64{3, 2}, 0.25},
		{"second is busier", [2]int{1, 1}, [2]int64{2, 3}, 0.75},
		{"even", [2]int{1, 1}, [2]int64{2, 2}, 0.5},
		{"idle", [2]int{1, 1}, [2]int64{0, 0}, 0.5},
		{"even by weight", [2]int{1, 3}, [2]int64{5, 15}, 0.25},
		{"more requests, less load", [2]int{1, 3}, [2]int64{5, 12}, 1.0 / 16},
		{"fewer requests, more load", [2]int{1, 3}, [2]int64{5, 18}, 7.0 / 16},
	} {
		t.Run(c.name, func(t *testing.T) {
			table, r := routed1(lb.LeastConnections, endpoint(1, c.weights[0]), endpoint(2, c.weights[1]))
			for i, load := range c.load {
				table.endpoints[lb.EndpointID(i+1)].InFlight.Store(load)
			}
			got := float64(picks(r, n, &plan.Task{})[1]) / n
			if math.Abs(got-c.want) > 0.025 {
				t.Errorf("share %.3f, want %.3f", got, c.want)
			}
		})
	}
}

// TestChooseOrder: one that is neither tried nor avoided, else one that is only
// avoided, else the one whose last try is longest ago.
func TestChooseOrder(t *testing.T) {
	for _, c := range []struct {
		name  string
		tried []int
		avoid []lb.EndpointID
		want  []lb.EndpointID // any of them
		fresh bool
	}{
		{"nothing tried", nil, nil, []lb.EndpointID{1, 2, 3}, true},
		{"one tried", []int{2}, nil, []lb.EndpointID{1, 3}, true},
		{"two tried", []int{2, 1}, nil, []lb.EndpointID{3}, true},
		{"one avoided", nil, []lb.EndpointID{1}, []lb.EndpointID{2, 3}, true},
		{"tried and avoided", []int{3}, []lb.EndpointID{1}, []lb.EndpointID{2}, true},
		{"an avoided one before a tried one", []int{3, 2}, []lb.EndpointID{1}, []lb.EndpointID{1}, true},
		{"all avoided", nil, []lb.EndpointID{1, 2, 3}, []lb.EndpointID{1, 2, 3}, true},
		{"all avoided, one tried", []int{2}, []lb.EndpointID{1, 2, 3}, []lb.EndpointID{1, 3}, true},
		{"all tried", []int{2, 3, 1}, nil, []lb.EndpointID{2}, false},
		{"all tried and avoided", []int{2, 3, 1}, []lb.EndpointID{1, 2, 3}, []lb.EndpointID{2}, false},
		{"one tried twice", []int{2, 3, 1, 2}, nil, []lb.EndpointID{3}, false},
		{"two tried twice", []int{2, 3, 1, 2, 3}, nil, []lb.EndpointID{1}, false},
		{"one tried that has left", []int{9, 2, 3}, nil, []lb.EndpointID{1}, true},
		{"all tried, and one that has left", []int{9, 3, 2, 1}, nil, []lb.EndpointID{3}, false},
	} {
		for _, policy := range policies {
			t.Run(c.name+"/"+policy.String(), func(t *testing.T) {
				table, r := routed1(policy, endpoint(1, 1), endpoint(2, 2), endpoint(3, 3))
				choice := &Choice{Task: &plan.Task{Avoid: c.avoid}, Rand: seeded()}
				for _, id := range c.tried {
					e := table.endpoints[lb.EndpointID(id)]
					if e == nil {
						e = &Endpoint{ID: lb.EndpointID(id)}
					}
					choice.Tried = append(choice.Tried, e)
				}
				for key := range uint32(20) {
					choice.Task.HashKey = key
					e, fresh := r.Choose(choice)
					if !slices.Contains(c.want, e.ID) || fresh != c.fresh {
						t.Fatalf("endpoint %d, fresh %v", e.ID, fresh)
					}
				}
			})
		}
	}
}

// TestChooseFindsTheLast: an endpoint with one slot of thousands is found when
// all the others have been tried or are avoided.
func TestChooseFindsTheLast(t *testing.T) {
	for _, policy := range policies {
		table, r := routed1(policy, endpoint(1, 2000), endpoint(2, 1), endpoint(3, 2000))
		choice := &Choice{Task: &plan.Task{Avoid: []lb.EndpointID{3}}, Rand: seeded(), Tried: []*Endpoint{table.endpoints[1]}}
		for key := range uint32(500) {
			choice.Task.HashKey = key * 17
			if e, fresh := r.Choose(choice); e.ID != 2 || !fresh {
				t.Fatalf("%s: endpoint %d, fresh %v", policy, e.ID, fresh)
			}
		}
	}
}

// TestChooseWeighsLaterTries: what a tried endpoint leaves goes to the others by
// weight, as far as a walk over a few slots can do that.
func TestChooseWeighsLaterTries(t *testing.T) {
	table := New()
	s := service(1, lb.Random, []netip.AddrPort{vipOf(1)}, endpoint(1, 800), endpoint(2, 100), endpoint(3, 300))
	seeded().Shuffle(len(s.SlotsV4), func(i, j int) { s.SlotsV4[i], s.SlotsV4[j] = s.SlotsV4[j], s.SlotsV4[i] })
	table.Publish(&plan.Desired{Services: []*plan.Service{s}})
	choice := &Choice{Task: &plan.Task{}, Rand: seeded(), Tried: []*Endpoint{table.endpoints[1]}}
	const n = 20000
	third := 0
	for range n {
		if e, _ := table.Route(vipOf(1)).Choose(choice); e.ID == 3 {
			third++
		}
	}
	if share := float64(third) / n; math.Abs(share-0.75) > 0.03 {
		t.Errorf("share of weight 300 beside 100 is %.3f", share)
	}
}

// TestChooseFamilies: a VIP leads to endpoints of its family, in later tries
// too: the client cannot tell one from the other.
func TestChooseFamilies(t *testing.T) {
	for _, policy := range policies {
		table, r := routed1(policy, endpoint(1, 1), endpoint6(2, 1), endpoint6(3, 1))
		choice := &Choice{Task: &plan.Task{}, Rand: seeded()}
		for range 20 {
			if e, _ := r.Choose(choice); e.ID != 1 {
				t.Fatalf("%s: an IPv4 VIP leads to endpoint %d", policy, e.ID)
			}
		}
		choice.Tried = []*Endpoint{table.endpoints[1]}
		if e, fresh := r.Choose(choice); e == nil || e.ID != 1 || fresh {
			t.Errorf("%s: a second try leaves the family: %v", policy, e)
		}
		choice.V6, choice.Tried = true, []*Endpoint{table.endpoints[2]}
		if e, fresh := r.Choose(choice); e == nil || e.ID != 3 || !fresh {
			t.Errorf("%s: second try over IPv6 leads to %v", policy, e)
		}
	}
}

func TestChooseNone(t *testing.T) {
	for _, policy := range policies {
		_, r := routed1(policy, endpoint6(1, 1))
		_, none := routed1(policy)
		for _, r := range []*Route{r, none} {
			for _, tried := range [][]*Endpoint{nil, {{ID: 7}}} {
				if e, fresh := r.Choose(&Choice{Task: &plan.Task{}, Rand: seeded(), Tried: tried}); e != nil || fresh {
					t.Errorf("%s: %v out of nothing", policy, e)
				}
			}
		}
	}
}

func TestChooseDoesNotAllocate(t *testing.T) {
	for _, policy := range policies {
		table, r := routed1(policy, endpoint(1, 1), endpoint(2, 2), endpoint(3, 3))
		choice := &Choice{Task: &plan.Task{Avoid: []lb.EndpointID{3}}, Rand: seeded(), Tried: []*Endpoint{table.endpoints[1]}}
		if n := testing.AllocsPerRun(100, func() { r.Choose(choice) }); n != 0 {
			t.Errorf("%s: %v allocations", policy, n)
		}
	}
}

func BenchmarkChoose(b *testing.B) {
	endpoints := make([]plan.Endpoint, 10)
	for i := range endpoints {
		endpoints[i] = endpoint(i+1, 10+i)
	}
	for _, policy := range policies {
		table, r := routed1(policy, endpoints...)
		for _, c := range []struct {
			name   string
			choice Choice
		}{
			{"first", Choice{Task: &plan.Task{HashKey: 77}, Rand: seeded()}},
			{"third", Choice{
				Task: &plan.Task{HashKey: 77, Avoid: []lb.EndpointID{3}}, Rand: seeded(),
				Tried: []*Endpoint{table.endpoints[1], table.endpoints[2]},
			}},
		} {
			b.Run(policy.String()+"/"+c.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					r.Choose(&c.choice)
				}
			})
		}
	}
}
