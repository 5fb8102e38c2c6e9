package cloudmap

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"connectd/pkg/lb"
	"connectd/pkg/wholefile"
)

const (
	stateFile    = "cloudmap.json"
	stateVersion = 1
	// saveAgain is the pause after the file could not be written.
	saveAgain = 10 * time.Second
)

// savedState is what a start knows of the last run: what is registered, what
// is in demand, and the last answers, which serve as long as AWS is away.
type savedState struct {
	Version      int
	Node         string
	Saved        time.Time
	Sequence     uint64
	Publications []*publication        `json:",omitempty"`
	Spaces       map[string]savedSpace `json:",omitempty"`
}

type savedSpace struct {
	Wanted   Namespace
	ID       string                      `json:",omitempty"`
	ARN      string                      `json:",omitempty"`
	HTTPName string                      `json:",omitempty"`
	Owner    string                      `json:",omitempty"`
	Aliases  map[string][]lb.ClientAlias `json:",omitempty"` // of Service Connect
	Listed   time.Time                   `json:",omitzero"`  // when those were
	Weights  map[string]int              `json:",omitempty"`
	Services map[string]savedService     `json:",omitempty"`
}

type savedService struct {
	Demand time.Time        `json:",omitzero"`
	Last   []lb.ClientAlias `json:",omitempty"`
	Ours   *savedOrigin     `json:",omitempty"`
	Theirs *savedOrigin     `json:",omitempty"`
}

type savedOrigin struct {
	Revision int64
	Loaded   time.Time
	List     []instance
}

func (s *Source) statePath() string {
	if s.p.StateDir == "" {
		return ""
	}
	return filepath.Join(s.p.StateDir, stateFile)
}

// load takes what the last run saved. It is called by New alone.
func (s *Source) load() error {
	path := s.statePath()
	if path == "" {
		return nil
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var st savedState
	if err := json.Unmarshal(data, &st); err != nil {
		return fmt.Errorf("decode %s: %w", path, err)
	}
	if st.Version != stateVersion {
		return fmt.Errorf("decode %s: version %d, want %d", path, st.Version, stateVersion)
	}
	if st.Node != s.p.Node {
		return fmt.Errorf("decode %s: it is of another node, %q", path, st.Node) // a disk that was copied
	}
	now := s.p.Now()
	s.registrar.sequence = st.Sequence
	for _, p := range st.Publications {
		if p != nil && instanceIDs.MatchString(p.ID) && checkDiscoveryName(p.Service) {
			s.registrar.publications[key(p.name(), p.ID)] = p
		}
	}
	for name, saved := range st.Spaces {
		s.restore(s.space(name), saved, now)
	}
	return nil
}

func (s *Source) restore(sp *space, saved savedSpace, now time.Time) {
	sp.used = true // until Params.Namespaces says otherwise
	sp.wanted = saved.Wanted
	sp.id, sp.arn, sp.httpName, sp.owner = saved.ID, saved.ARN, saved.HTTPName, saved.Owner
	sp.resolved = sp.id != ""
	if saved.Weights != nil {
		sp.weights = saved.Weights
		sp.shards[0].weights = saved.Weights
	}
	sp.connect.aliases = saved.Aliases
	if !saved.Listed.IsZero() {
		sp.connect.due = saved.Listed.Add(jitter(s.random, aliasesEvery))
	}
	for name, each := range saved.Services {
		if !checkDiscoveryName(name) || now.Sub(each.Demand) > demandFor {
			continue
		}
		sv := s.service(sp, name)
		sv.demand, sv.last = each.Demand, each.Last
		sv.ours.restore(s, each.Ours)
		if sv.theirs != nil {
			sv.theirs.restore(s, each.Theirs)
		}
		s.dirty[sv] = struct{}{}
	}
	s.directory(sp)
}

func (o *origin) restore(s *Source, saved *savedOrigin) {
	if saved == nil {
		return
	}
	o.list, o.revision, o.loaded, o.odd, o.have = saved.List, saved.Revision, saved.Loaded, map[string]int{}, map[string]served{}
	for i := range o.list {
		in := &o.list[i]
		if in.Node == "" {
			o.foreign = true
			continue
		}
		h := o.have[in.Node]
		o.have[in.Node] = served{Sequence: max(h.Sequence, in.Sequence), Count: h.Count + 1}
	}
	o.known = true
	close(o.answered)
	s.claim(o)
}

// save writes the state if that is due, or anything is to be saved at all. An
// error is logged and tried again: the file is a memory, not a duty.
func (s *Source) save(now bool) {
	s.mu.Lock()
	if s.saveAt.IsZero() || !now && s.p.Now().Before(s.saveAt) {
		s.mu.Unlock()
		return
	}
	s.saveAt = time.Time{}
	path := s.statePath()
	if path == "" {
		s.mu.Unlock()
		return
	}
	data, err := json.Marshal(s.saved())
	s.mu.Unlock()
	if err == nil {
		err = wholefile.Write(path, data)
	}
	if err != nil {
		s.log.Error("save what is known of Cloud Map", "path", path, "error", err)
		s.mu.Lock()
		s.soon(saveAgain)
		s.mu.Unlock()
	}
}

func (s *Source) saved() savedState {
	st := savedState{Version: stateVersion, Node: s.p.Node, Saved: s.p.Now(), Sequence: s.registrar.sequence, Spaces: map[string]savedSpace{}}
	for _, p := range s.registrar.publications {
		if !p.Written.IsZero() {
			st.Publications = append(st.Publications, p)
		}
	}
	slices.SortFunc(st.Publications, func(a, b *publication) int { return strings.Compare(a.ID, b.ID) })
	for name, sp := range s.spaces {
		out := savedSpace{
			Wanted: sp.wanted, ID: sp.id, ARN: sp.arn, HTTPName: sp.httpName, Owner: sp.owner,
			Aliases: sp.connect.aliases, Listed: sp.connect.listed, Weights: sp.weights, Services: map[string]savedService{},
		}
		for name, sv := range sp.services {
			if sv.demand.IsZero() {
				continue
			}
			each := savedService{Demand: sv.demand, Last: sv.last, Ours: sv.ours.saved()}
			if sv.theirs != nil {
				each.Theirs = sv.theirs.saved()
			}
			out.Services[name] = each
		}
		st.Spaces[name] = out
	}
	return st
}

func (o *origin) saved() *savedOrigin {
	if !o.known {
		return nil
	}
	return &savedOrigin{Revision: o.revision, Loaded: o.loaded, List: o.list}
}
