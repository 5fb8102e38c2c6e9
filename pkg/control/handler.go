package control

import (
	"bufio"
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"connectd/pkg/lb"
)

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, answer := range map[string]func(*http.Request) (any, error){
		"GET /v1/status":      s.status,
		"GET /v1/services":    s.services,
		"GET /v1/endpoints":   s.endpoints,
		"GET /v1/resolve":     s.resolve,
		"GET /v1/events":      s.events,
		"GET /v1/connections": s.connections,
		"GET /v1/tasks":       s.tasks,
		"POST /v1/off":        func(r *http.Request) (any, error) { return s.off(r, true) },
		"POST /v1/on":         func(r *http.Request) (any, error) { return s.off(r, false) },
		"POST /v1/drain":      func(r *http.Request) (any, error) { return s.drain(r, true) },
		"POST /v1/undrain":    func(r *http.Request) (any, error) { return s.drain(r, false) },
		"POST /v1/reload":     s.reload,
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
			value, err := answer(r)
			w.Header().Set("Content-Type", "application/json")
			if rows, ok := value.(iter.Seq[any]); ok && err == nil {
				writeRows(w, rows)
				return
			}
			writeValue(w, value, err)
		})
	}
	return mux
}

// writeValue writes an answer, or the error if there is one. That writing
// fails says that the client left.
func writeValue(w http.ResponseWriter, value any, err error) {
	code := http.StatusOK
	if err != nil {
		e := asError(err)
		value, code = e, codeStatus[e.Code]
	}
	data, err := json.Marshal(value)
	if err != nil { // not a number where one is due: a defect of the backend
		code = http.StatusInternalServerError
		data, _ = json.Marshal(refuse(CodeFailed, "encode answer: %s", err))
	}
	w.WriteHeader(code)
	w.Write(data)
}

// writeRows writes a list one by one: as one piece of JSON 100,000 endpoints
// would cost the daemon 100 MB.
func writeRows(w http.ResponseWriter, rows iter.Seq[any]) {
	buffered := bufio.NewWriterSize(w, 32<<10)
	separator := "["
	for row := range rows {
		data, err := json.Marshal(row)
		if err != nil {
			panic(http.ErrAbortHandler) // too late for an error, so the client must see a cut
		}
		buffered.WriteString(separator)
		if _, err := buffered.Write(data); err != nil {
			return // the client left
		}
		separator = ","
	}
	if separator == "[" {
		buffered.WriteString(separator)
	}
	buffered.WriteString("]")
	buffered.Flush()
}

func (s *Server) status(*http.Request) (any, error) {
	status := s.backend.Status()
	status.judge()
	return &status, nil
}

func (s *Server) services(r *http.Request) (any, error) {
	namespace, arg := r.URL.Query().Get("namespace"), r.URL.Query().Get("service")
	only := ""
	if arg != "" {
		if namespace != "" && !strings.Contains(arg, "/") {
			arg = namespace + "/" + arg
		}
		name, err := find(s.backend.Names(), arg)
		if err != nil {
			return nil, err
		}
		only = name.String()
	}
	return rows(s.backend.Services(), func(v *Service) bool {
		return (only == "" || v.Name == only) && (namespace == "" || strings.HasPrefix(v.Name, namespace+"/"))
	}), nil
}

func (s *Server) endpoints(r *http.Request) (any, error) {
	query := r.URL.Query()
	var name lb.ServiceName
	if arg := query.Get("service"); arg != "" {
		var err error
		if name, err = find(s.backend.Names(), arg); err != nil {
			return nil, err
		}
	}
	states := query["state"]
	for _, state := range states {
		if !slices.Contains(stateWords(), state) {
			return nil, refuse(CodeInvalid, "no state %q: say %s", state, strings.Join(stateWords(), ", "))
		}
	}
	return rows(s.backend.Endpoints(name), func(e *Endpoint) bool {
		return len(states) == 0 || slices.Contains(states, e.State)
	}), nil
}

func (s *Server) resolve(r *http.Request) (any, error) {
	name, task := r.URL.Query().Get("name"), r.URL.Query().Get("task")
	if name == "" {
		return nil, refuse(CodeInvalid, "no name given")
	}
	got := s.backend.Resolve(name, task)
	if len(got) == 0 && task != "" {
		return nil, refuse(CodeNotFound, "no task %s; connectd status lists them", task)
	}
	return rows(got, func(*Resolution) bool { return true }), nil
}

// drain answers with the endpoint as it then is.
func (s *Server) drain(r *http.Request, on bool) (any, error) {
	var req drainRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		return nil, refuse(CodeInvalid, "decode request: %s", err)
	}
	name, err := find(s.backend.Names(), req.Service)
	if err != nil {
		return nil, err
	}
	address := netip.AddrPortFrom(req.Address.Addr().Unmap(), req.Address.Port())
	if _, err := s.endpoint(name, address); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.limits.work)
	defer cancel()
	log := s.log.With("service", name.String(), "address", address.String(), "drain", on)
	if err := s.backend.Drain(ctx, name, address, on); err != nil {
		log.Warn("drain by command", "error", err)
		return nil, err
	}
	log.Info("drain by command")
	return s.endpoint(name, address)
}

func (s *Server) endpoint(name lb.ServiceName, address netip.AddrPort) (*Endpoint, error) {
	var known []string
	for _, e := range s.backend.Endpoints(name) {
		if e.Address == address {
			return &e, nil
		}
		known = append(known, e.Address.String())
	}
	if known == nil {
		return nil, refuse(CodeNotFound, "service %s has no endpoints", name)
	}
	return nil, refuse(CodeNotFound, "service %s has no endpoint %s; it has %s", name, address, list(known, " and "))
}

// reload answers with what is in use then.
func (s *Server) reload(r *http.Request) (any, error) {
	ctx, cancel := context.WithTimeout(r.Context(), s.limits.work)
	defer cancel()
	if err := s.backend.Reload(ctx); err != nil {
		return nil, err
	}
	config := s.backend.Status().Config
	return &config, nil
}

func stateWords() []string {
	var words []string
	for _, s := range lb.States() {
		words = append(words, s.String())
	}
	return words
}

// rows are pointers to what is kept of a list.
func rows[T any](list []T, keep func(*T) bool) iter.Seq[any] {
	return func(yield func(any) bool) {
		for i := range list {
			if v := &list[i]; keep(v) && !yield(v) {
				return
			}
		}
	}
}
