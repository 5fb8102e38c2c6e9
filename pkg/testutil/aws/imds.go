package aws

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	ttlHeader   = "X-Aws-Ec2-Metadata-Token-Ttl-Seconds"
	tokenHeader = "X-Aws-Ec2-Metadata-Token"
	maxTTL      = 21600 // seconds
)

// serveIMDS answers as version 2 only does: nothing without a token. The hop
// limit of answers is not imitated.
func (s *Server) serveIMDS(w http.ResponseWriter, r *http.Request) {
	if !s.admit(w, r, ServiceIMDS) {
		return
	}
	n := s.node
	n.mu.Lock()
	defer n.mu.Unlock()
	now := s.cloud.params.Now()
	path := strings.TrimPrefix(r.URL.Path, "/latest/")
	if path == "api/token" {
		n.serveToken(w, r, now)
		return
	}
	if r.Method != http.MethodGet {
		http.Error(w, "", http.StatusMethodNotAllowed)
		return
	}
	if expires, ok := n.tokens[r.Header.Get(tokenHeader)]; !ok || !now.Before(expires) {
		http.Error(w, "", http.StatusUnauthorized)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	if value, ok := n.metadata[path]; ok {
		w.Write([]byte(value))
		return
	}
	if names := n.list(path); len(names) > 0 {
		w.Write([]byte(strings.Join(names, "\n")))
		return
	}
	http.NotFound(w, r)
}

func (n *Node) serveToken(w http.ResponseWriter, r *http.Request, now time.Time) {
	if r.Method != http.MethodPut || r.Header.Get("X-Forwarded-For") != "" {
		http.Error(w, "", http.StatusForbidden)
		return
	}
	ttl, err := strconv.Atoi(r.Header.Get(ttlHeader))
	if err != nil || ttl < 1 || ttl > maxTTL {
		http.Error(w, "", http.StatusBadRequest)
		return
	}
	value := "token-" + strconv.Itoa(len(n.tokens)) + "-" + strconv.FormatInt(now.UnixNano(), 36)
	n.tokens[value] = now.Add(time.Duration(ttl) * time.Second)
	w.Header().Set(ttlHeader, strconv.Itoa(ttl))
	w.Write([]byte(value))
}

// list names what is directly below a path.
func (n *Node) list(path string) []string {
	names := make(map[string]bool)
	for key := range n.metadata {
		rest, ok := strings.CutPrefix(key, strings.TrimSuffix(path, "/")+"/")
		if !ok {
			continue
		}
		name, _, more := strings.Cut(rest, "/")
		if more {
			name += "/"
		}
		names[name] = true
	}
	return slices.Sorted(maps.Keys(names))
}
